"""What can be wrong with a clip."""


class ClipError(Exception):
    """A clip cannot be read; the message is the reason, without the path."""

    expected = True  # the fault of a file, not of the code: no traceback is wanted


class NoVideo(ClipError):
    """A media file without video, such as a piece of music."""
