"""deploy.yaml: the description of an exported model, its inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import paddle

from stnet.backends.program import Classifier, Exportable, Scorer, Shape, clip_sizes
from stnet.reader.formats import FORMATS
from stnet.utils.schema import SCHEMA

if TYPE_CHECKING:
    from stnet.config import ReaderSection
    from stnet.models.model import Model

FILE = "deploy.yaml"
NORMALISED = "then (value / 255 - mean) / std"
IN_THE_MODEL = "these bytes, 0 to 255, are the input: the model itself computes (value / 255 - mean) / std"
RESIZED = (
    "unless the short side is short_size: antialiased bilinear resize to short_size x int(short_size * 4 / 3), the "
    "longer on the longer side (a square counts as wide); then the central square of target_size, its corner at "
    "round((side - target_size) / 2)"
)
ANTIALIASED = (
    "as Pillow's Image.resize(size, BILINEAR): a triangle as wide as the old pixels that fall upon a new one, one axis "
    "after the other, rounded to bytes in between; the height first if it loses more than twice as many pixels as the "
    "width, else the width. cv2.resize blends no more than 2 x 2 pixels: where frames shrink, its scores are others"
)


class Form(NamedTuple):
    """Files, inputs and outputs of an exported model."""

    name: str  # of its files, without suffix
    layer: Exportable
    shape: Shape  # of the input; None: any number
    meaning: str  # of the input
    output: str = "probabilities"  # or "logits"
    companions: dict[str, dict[str, Any]] = {}  # further YAML files, by name
    precision: dict[str, Any] = {}  # validation report, if it computes in low precision


def form_of_clips(model: Model, section: ReaderSection, uint8: bool) -> Form:
    """Describe a model from clips to probabilities. `uint8`: the model normalises."""
    settings = model.config.MODEL
    seg_num, seglen, size = clip_sizes(section)
    network = Scorer(model.network, settings.image_mean, settings.image_std, seglen) if uint8 else model.network
    free = "batch and seg_num" if model.any_seg_num else "batch"
    meaning = (
        "segments of seglen RGB frames stacked on the channel axis (R, G, B of the first frame, "
        f"R, G, B of the second, ...); {free} may be any number"
    )
    shape = [None, None if model.any_seg_num else seg_num, 3 * seglen, size, size]
    return Form(settings.name.upper(), Classifier(network), shape, meaning)


def description(
    form: Form, model: Model, section: ReaderSection, labels: Sequence[str], files: list[str], names: tuple[str, str]
) -> dict[str, Any]:
    """deploy.yaml as plain data. `names`: of the model's input and output."""
    settings = model.config.MODEL
    names_of_any = ("batch", "seg_num")
    return {
        "schema": SCHEMA,
        "model": {
            "name": settings.name.upper(),
            **model.own_settings(),
            "num_classes": settings.num_classes,
            "files": files,
            "paddle_version": paddle.__version__,
        },
        "input": {
            "name": names[0],
            "dtype": form.layer.input_dtype,
            "shape": [names_of_any[axis] if size is None else size for axis, size in enumerate(form.shape)],
            "meaning": form.meaning,
        },
        "output": {
            "name": names[1],
            "dtype": "float32",
            "shape": ["batch", settings.num_classes],
            "kind": form.output,
            "topk": settings.topk,
            "meaning": {
                "probabilities": "probability of each class, in the order of labels",
                "logits": "logit of each class, in the order of labels: their softmax is the probabilities",
            }[form.output],
        },
        "sampling": _sampling(settings.format, section),
        "transform": {
            "colours": "RGB",
            "short_size": section.short_size,
            "target_size": section.target_size,
            "meaning": f"{RESIZED}; {IN_THE_MODEL if form.layer.input_dtype == 'uint8' else NORMALISED}",
            "antialiased": ANTIALIASED,
            "mean": list(settings.image_mean),
            "std": list(settings.image_std),
        },
        **({"precision": form.precision} if form.precision else {}),
        "labels": list(labels),
    }


def _sampling(clip_format: str, section: ReaderSection) -> dict[str, Any]:
    return {
        "seg_num": section.seg_num,
        "seglen": section.seglen,
        "format": clip_format,
        "meaning": "of n frames, average = n // seg_num; segment i starts at i * average + "
        f"{FORMATS.get(clip_format).centre_formula}, at i * average if average < seglen, at i if average is 0; "
        "seglen consecutive frames, modulo n",
    }
