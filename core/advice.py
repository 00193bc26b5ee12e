"""What the entries say after an error: which flag or setting mends it. The rooms below raise the bare facts."""

from __future__ import annotations

from core.errors import UserError

# Topic of a UserError -> advice. A topic names what is wrong, not where it is raised.
ADVICE: dict[str, str] = {
    "damaged description": "delete it to use the weights without it",
    "engine": "--engine=paddle always works",
    "export folder": "delete it, or set --save_dir to another folder",
    "mixed checkpoint": "use another checkpoint",
    "no record": "delete it, or mend it",
    "not recorded": "delete one of the two",
    "onnx": "bash run.sh setup onnx, or pip install 'paddle2onnx>=2.1' onnxruntime",
    "other weights": "delete the .json if you replaced them yourself",
    "recorded otherwise": "delete both to fetch them again, or the record alone if you changed the file yourself",
    "sizes": "set the sizes in MODEL, such as the depth, to those that the weights were made for",
    "start": "set --pretrain to a file, or --pretrain=none to start from random values",
    "weights": "set --weights to a file",
}


def advised(error: UserError) -> str:
    """The error's message, followed by what to do about it."""
    advice = ADVICE[error.topic] if error.topic else ""
    return f"{error}; {advice}" if advice else str(error)
