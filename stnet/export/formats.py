"""File formats of exported models: those of the engines, and of PaddleX and PaddleClas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stnet.backends.deploy_yaml import Form
from stnet.backends.engines import ENGINES, ExportEngine, PaddleInference
from stnet.backends.program import Exportable, FrameScorer, Shape, clip_sizes, write_new_program
from stnet.config import ReaderSection
from stnet.models.model import Model
from stnet.reader.formats import FRAMES, PICKLE, VIDEO
from stnet.utils.errors import UserError


class PaddleX(PaddleInference):
    """inference.json, inference.pdiparams and inference.yml, for PaddleX and PaddleClas.

    PaddleX samples, scales, normalises and takes the softmax by itself.
    """

    file_format = "paddlex"

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """Write PREFIX.json and PREFIX.pdiparams."""
        write_new_program(layer, prefix, shape)

    def form(self, model: Model, section: ReaderSection, labels: Sequence[str], uint8: bool) -> Form:
        """Describe a model from single frames to logits."""
        settings = model.config.MODEL
        if uint8:
            raise UserError("PaddleX normalises by itself: its format cannot take uint8", "leave out --uint8")
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


def exporter(file_format: str) -> ExportEngine:
    """Find the engine that writes and runs a format. Raises UserError for an unknown one."""
    engines = [*(ENGINES.get(name)() for name in ENGINES.names()), PaddleX()]  # PaddleX is no --engine
    formats = {engine.file_format: engine for engine in engines if isinstance(engine, ExportEngine)}
    if not file_format or file_format not in formats:
        raise UserError(f"unknown format {file_format!r}; known: {', '.join(sorted(filter(None, formats)))}")
    return formats[file_format]


def inference_yml(model: Model, section: ReaderSection, labels: Sequence[str]) -> dict[str, Any]:
    """inference.yml as plain data: the steps of PaddleX's video classification."""
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
