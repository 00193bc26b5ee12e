"""Errors that are the user's to mend: one readable line, no traceback."""


class UserError(Exception):
    """Wrong input or surroundings. The message says what was found, what was expected, what to do."""
