"""What everything stands on: errors, logs, seeds, files, paths, threads."""
