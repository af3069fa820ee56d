"""The one exception for everything a user can put right; the command line prints it as a single line."""


class LceError(ValueError):
    """Bad input: says what was wrong, where, and what would be right."""
