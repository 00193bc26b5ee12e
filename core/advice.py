"""What the entries say after an error: which flag or setting mends it. The rooms below raise the bare facts."""

from __future__ import annotations

from core.errors import UserError

# Topic of a UserError -> advice. A topic names what is wrong, not where it is raised.
ADVICE: dict[str, str] = {
    "no list": "set filelist in the config, for example -o TRAIN.filelist=train.list",
    "out": "set --out",
    "out in use": "wait for it, or set --out to another folder",
    "save_dir": "set --save_dir",
    "save_dir in use": "set --save_dir to a folder of its own",
}


def advised(error: UserError) -> str:
    """The error's message, followed by what to do about it."""
    advice = ADVICE[error.topic] if error.topic else ""
    return f"{error}; {advice}" if advice else str(error)
