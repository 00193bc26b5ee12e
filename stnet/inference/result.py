"""Result of one video: to print, save and explain."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stnet.inference.table import csv_rows
from stnet.metrics.rejection import UNKNOWN, Judgement
from stnet.reader.contact_sheet import draw_sheet, panel_of
from stnet.utils.atomic import write_atomically, write_json
from stnet.utils.errors import UserError
from stnet.utils.files import StrPath, file_in
from stnet.utils.parsing import printable
from stnet.utils.schema import SCHEMA

if TYPE_CHECKING:
    from stnet.inference.explain import Explanation
    from stnet.reader.clip import Clip

TILE = 96  # pixels of a frame's side in pictures
LONGEST_NAME = 200  # characters of a class name that are printed


@dataclass
class Result:
    """The most probable classes of a video, in order, or the error; the first four names are those of PaddleX."""

    input_path: str | None  # None: bytes or frames
    class_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # probabilities
    label_names: list[str] = field(default_factory=list)
    label: int | None = None  # from the list
    error: str = ""  # of a video that could not be read
    judged: Judgement | None = None  # where rejection was asked for
    _read: Callable[[], Clip] | None = field(default=None, repr=False, compare=False)
    _explain: Callable[[str, Clip, list[int], int], Explanation] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: Sequence[str], topk: int, **facts: Any) -> Result:
        """Make a Result of probabilities [num_classes]; of equal ones the smaller class number comes first."""
        ids = np.argsort(-probabilities, kind="stable")[:topk].tolist()
        return cls(
            class_ids=ids, scores=[float(probabilities[i]) for i in ids], label_names=[labels[i] for i in ids], **facts
        )

    @property
    def is_unknown(self) -> bool:
        """True for a video that belongs to no class, where rejection was asked for."""
        return self.judged is not None and self.judged.is_unknown

    @property
    def answer(self) -> str:
        """Name of the most probable class, or "unknown"; "" for a video that could not be read."""
        return UNKNOWN if self.is_unknown else "".join(self.label_names[:1])

    @property
    def reject_facts(self) -> dict[str, Any]:
        """The answer and its reason as plain data; nothing where rejection was not asked for."""
        return {} if self.judged is None else self.judged.facts(self.answer)

    @property
    def json(self) -> dict[str, Any]:
        """Plain data: input_path, class_ids, scores, label_names; label, error and reject_facts where there are any."""
        facts: dict[str, Any] = {
            "input_path": self.input_path,
            "class_ids": self.class_ids,
            "scores": self.scores,
            "label_names": self.label_names,
        }
        if self.label is not None:
            facts["label"] = self.label
        if self.error:
            facts["error"] = self.error
        return {**facts, **self.reject_facts}

    def __str__(self) -> str:
        """Format the path, then one line for each class, or the error; before the classes why they do not count."""
        names = [printable(name, LONGEST_NAME) for name in self.label_names]
        rows = [f"    {name}, {score:.6f}" for score, name in zip(self.scores, names)]
        if self.judged and self.is_unknown:
            reason = f"scaled probability {self.judged.scaled_probability:.6f} below {self.judged.threshold:.6f}"
            rows.insert(0, f"    {UNKNOWN}: {reason}")
        return "\n".join([printable(self.input_path or "(no file)"), *(rows or [f"    {printable(self.error)}"])])

    def print(self) -> None:
        """Print to standard output."""
        print(self, flush=True)

    def save_to_json(self, path: StrPath) -> str:
        """Write `json` and the schema into a file; returns its path. `path` may be a folder, see `save_to_img`."""
        path = file_in(path, self.input_path, ".json")
        write_json(path, {"schema": SCHEMA, **self.json})
        return path

    def save_to_csv(self, path: StrPath) -> str:
        """Write a header and one row, as predict's --output does; returns the path, see `save_to_img`."""
        path = file_in(path, self.input_path, ".csv")

        def write(temporary: str) -> None:
            with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(csv_rows([self], len(self.class_ids), reject=self.judged is not None))

        write_atomically(path, write)
        return path

    def save_to_img(self, path: StrPath) -> str:
        """Draw the clip, one row for each super-image, under the top classes.

        Args:
            path: a .png or .jpg file; or a folder, made if missing, in which the file is named after the video.

        Returns:
            the path of the file.

        Raises:
            UserError: the video could not be read, or the file cannot be written.
        """
        path = file_in(path, self.input_path, ".png", ".jpg", ".jpeg")
        sheet = draw_sheet([panel_of(self.clip(), str(self))], TILE)
        kind = "JPEG" if path.lower().endswith((".jpg", ".jpeg")) else "PNG"
        write_atomically(path, functools.partial(sheet.save, format=kind))
        return path

    def clip(self) -> Clip:
        """Read the clip again. Raises UserError where the video could not be read."""
        if self._read is None:
            raise UserError(f"{self.input_path}: {self.error}")
        return self._read()

    def explain(self, topk: int | None = None, grid: int = 8) -> Explanation:
        """Explain the top classes by shares of the segments and occlusion maps; see explain.py.

        Args:
            topk: of the result's classes; default: all.
            grid: squares along a side of an occlusion map; 0: no maps.

        Raises:
            UserError: the video could not be read, or the model has no segments.
        """
        clip = self.clip()
        if self._explain is None:
            raise UserError("an exported model does not show what its segments contributed: take the weights instead")
        return self._explain(self.input_path or "", clip, self.class_ids[:topk], grid)
