"""The one exception for everything that a user can correct; the command line prints it as a single line."""


class LceError(ValueError):
    """Bad input: says what was wrong, where, and what would be right."""
