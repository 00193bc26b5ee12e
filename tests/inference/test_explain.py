"""stnet.inference.explain: shares that sum to the logit, and maps of what was blanked."""

import json

import numpy as np
import paddle
import pytest
from PIL import Image

from stnet.backends.engines import make_engine
from stnet.backends.stages import build_stages
from stnet.config import load_config
from stnet.inference.explain import explain, occlusion
from stnet.models import get_model, model_section
from stnet.utils.errors import UserError

LABELS = ["a", "b", "c", "d"]


@pytest.fixture
def model(clip_set):
    paddle.seed(7)
    return get_model("STNET", load_config(clip_set / "tiny.yaml", model_section, ["INFER.seg_num=6"]), "infer")


def random_clip():
    return np.random.RandomState(2).randint(0, 256, (6, 6, 32, 32)).astype(np.uint8)


@pytest.mark.parametrize("name", ["paddle", "inference", "onnxruntime"])
def test_what_the_segments_add_sums_to_the_logits_of_every_engine(model, name):
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("paddle2onnx")
    section = model.config.section("infer")
    parts, engine, clip = build_stages(name, model, section), make_engine(name, model, section), random_clip()
    segments = [[i, i + 1] for i in range(6)]
    explanation = explain(parts, engine, clip, segments, LABELS, range(4), grid=0)
    expected = engine(clip[None])[0]
    assert [(reason.class_id, reason.label) for reason in explanation.classes] == list(enumerate(LABELS))
    for reason in explanation.classes:
        assert len(reason.shares) == 6
        assert sum(reason.shares) + reason.rest == pytest.approx(expected[reason.class_id], abs=1e-4)
        assert reason.logit == pytest.approx(expected[reason.class_id], abs=1e-4)
        assert reason.where == []
    assert sum(reason.score for reason in explanation.classes) == pytest.approx(1)


def test_the_map_says_by_how_much_a_logit_falls_when_a_square_is_blanked():
    def brightness_of_a_corner(clips):
        return np.stack([clips[:, :, :3, :4, 8:].mean((1, 2, 3, 4)), np.zeros(len(clips))], axis=1)

    clip = np.full((2, 6, 12, 12), 255, np.uint8)
    falls = occlusion(brightness_of_a_corner, clip, 3, blank=(0, 0, 0))
    assert falls[..., 1].tolist() == np.zeros((3, 3)).tolist()
    assert falls[..., 0].tolist() == [[0, 0, 255], [0, 0, 0], [0, 0, 0]]
    assert (clip == 255).all()


def test_an_explanation_is_written_as_json_and_as_a_picture(model, tmp_path):
    section = model.config.section("infer")
    parts, engine, clip = build_stages("paddle", model, section), make_engine("paddle", model, section), random_clip()
    explanation = explain(parts, engine, clip, [[i, i + 1] for i in range(6)], LABELS, [3, 1], grid=2, path="视.mp4")
    explanation.save_to_json(tmp_path / "why.json")
    facts = json.loads((tmp_path / "why.json").read_text(encoding="utf-8"))
    assert facts["input_path"] == "视.mp4"
    assert facts["segments"][5] == [5, 6]
    assert [len(reason["where"]) for reason in facts["classes"]] == [2, 2]
    explanation.save_to_img(tmp_path / "why.png")
    assert Image.open(tmp_path / "why.png").format == "PNG"


def test_a_model_that_cannot_be_cut_says_that_it_has_no_timeline(model, monkeypatch):
    monkeypatch.setattr(type(model), "streaming", lambda self: None)
    with pytest.raises(UserError, match="STNET has no segments: it has no timeline"):
        build_stages("auto", model, model.config.section("infer"))
