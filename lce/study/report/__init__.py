"""The report of a study: its results, statistics, claims, tables and figures."""
