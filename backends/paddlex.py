"""The form of PaddleX and PaddleClas: inference.json, inference.pdiparams and inference.yml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backends.deploy_yaml import Form
from backends.engines import PaddleInference
from backends.export import Exportable, FrameScorer, Shape, clip_sizes, write_new_program
from core.errors import UserError
from reader.formats import FRAMES, PICKLE, VIDEO

if TYPE_CHECKING:
    from core.config import ReaderSection
    from models.model import Model


class PaddleX(PaddleInference):
    """What PaddleX runs. It does all but the network itself: it samples, scales, normalises and takes the softmax."""

    file_format = "paddlex"

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """PREFIX.json and PREFIX.pdiparams."""
        write_new_program(layer, prefix, shape)

    def form(self, model: Model, section: ReaderSection, labels: Sequence[str], uint8: bool) -> Form:
        """Frames one after the other in, logits out."""
        settings = model.config.MODEL
        if uint8:
            raise UserError("PaddleX normalises by itself: its format cannot take uint8", "uint8")
        if settings.format.lower() not in (VIDEO, PICKLE, FRAMES):
            raise UserError(f"PaddleX reads videos, and samples them as {VIDEO}: not as the format {settings.format}")
        seg_num, seglen, size = clip_sizes(section)
        return Form(
            "inference",
            FrameScorer(model.network, seglen),
            [None, seg_num * seglen, 3, size, size],
            "RGB frames, segment by segment; batch may be any number",
            output="logits",
            companions={"inference.yml": inference_yml(model, section, labels)},
        )


def inference_yml(model: Model, section: ReaderSection, labels: Sequence[str]) -> dict[str, Any]:
    """inference.yml as plain data: the steps of PaddleX's video classification, in its words."""
    settings = model.config.MODEL
    seg_num, seglen, size = clip_sizes(section)
    return {
        "Global": {"model_name": settings.name.upper()},
        "PreProcess": {
            "transform_ops": [
                {"ReadVideo": {"num_seg": seg_num, "seg_len": seglen, "sample_type": "uniform"}},
                {"Scale": {"short_size": section.short_size}},
                {"CenterCrop": {"target_size": size}},
                {"Image2Array": {"data_format": "tchw"}},
                {"NormalizeVideo": {"mean": list(settings.image_mean), "std": list(settings.image_std)}},
            ]
        },
        "PostProcess": {"Topk": {"topk": settings.topk, "label_list": list(labels)}},
    }
