"""What the entries say after an error: which flag or setting mends it. The rooms below raise the bare facts."""

from __future__ import annotations

from core.errors import UserError

# Topic of a UserError -> advice. A topic names what is wrong, not where it is raised.
ADVICE: dict[str, str] = {
    "output": "set --resume to go on with it, --overwrite to replace it, or --output to another file",
    "output_of_others": "set --overwrite to replace it, or --output to another file",
}


def advised(error: UserError) -> str:
    """The error's message, followed by what to do about it."""
    advice = ADVICE[error.topic] if error.topic else ""
    return f"{error}; {advice}" if advice else str(error)
