"""The commands, one file each, and what they can be told."""
