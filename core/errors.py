"""Errors that are the user's to mend: one readable line, no traceback."""


class UserError(Exception):
    """Wrong input or surroundings. The message says what was found and what was expected.

    Args:
        message: the fact, without a word of flags: a lower room does not know which program it serves.
        topic: key of core.advice.ADVICE, from which an entry says which flag or setting mends it; "" where none does.
    """

    def __init__(self, message: str, topic: str = "") -> None:
        super().__init__(message)
        self.topic = topic
