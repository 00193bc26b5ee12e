"""stnet.backends.engines and stnet.backends.program."""

import os
import sys

import numpy as np
import paddle
import pytest
from entries import failing

from stnet.backends import cache
from stnet.backends.engines import ENGINES, Auto, Engine, make_engine
from stnet.backends.exported import clips_at_once
from stnet.cli import advised, load_plugin
from stnet.config import load_config
from stnet.inference.predictor import Predictor
from stnet.models import get_model, model_section
from stnet.models.dygraph import Dygraph
from stnet.reader import loader
from stnet.runtime import threads
from stnet.utils.errors import UserError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache of its own."""
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "exports"


def names(home):
    """Of the exports in a cache."""
    return [path.name for path in home.iterdir() if not path.name.startswith(".")] if home.exists() else []


def tiny(clip_set, *overrides, seed=5):
    """A model of the tiny configuration with random weights and statistics, and its section TEST."""
    config = load_config(clip_set / "tiny.yaml", model_section, overrides)
    model = get_model("STNET", config, "test")
    paddle.seed(seed)
    for name, value in sorted(model.network.state_dict().items()):
        if name.endswith(("_mean", "_variance")):
            value.set_value(paddle.uniform(value.shape, min=0.5, max=1.5))
    return model, config.section("test")


def random_clips(count, section):
    shape = (count, section.seg_num, 3 * section.seglen, section.target_size, section.target_size)
    return np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)


def assert_equal_logits(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", ["inference", "onnxruntime"])
@pytest.mark.parametrize("overrides", [[], ["MODEL.num_layers=50"]])
def test_the_engines_agree_on_any_number_of_clips(clip_set, home, name, overrides):
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("paddle2onnx")
    model, section = tiny(clip_set, *overrides)
    plain, engine = make_engine("paddle", model, section), make_engine(name, model, section)
    assert isinstance(plain, Dygraph)
    assert engine.at_once == 4
    for count in (1, 4, 6):
        clips = random_clips(count, section)
        expected = plain(clips)
        assert_equal_logits(engine(clips), expected)
        assert_equal_logits(engine(paddle.to_tensor(clips)), expected)


@pytest.fixture
def no_onnx(monkeypatch):
    """As if ONNX Runtime were not installed."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


def test_auto_takes_paddle_inference_where_there_is_no_onnx_runtime(clip_set, home, no_onnx):
    assert make_engine("auto", *tiny(clip_set)).name.startswith("paddle.inference with ")


def test_auto_takes_onnx_runtime_where_it_is_installed_and_the_next_best_if_that_fails(
    clip_set, home, monkeypatch, caplog
):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("paddle2onnx")
    assert make_engine("auto", *tiny(clip_set)).name == "ONNX Runtime"
    monkeypatch.setattr(ENGINES.get("onnxruntime"), "write", broken)
    assert make_engine("auto", *tiny(clip_set, seed=6)).name.startswith("paddle.inference with ")
    assert "engine onnxruntime does not work here: no such operator; taking the next best" in caplog.text


def test_several_clips_go_together_only_where_they_are_small(clip_set):
    config = load_config("configs/stnet.yaml", model_section)
    sections = [config.section("infer"), config.section("test"), config.section("valid")]
    assert [clips_at_once(section) for section in sections] == [1, 1, 4]
    model, section = tiny(clip_set)
    assert clips_at_once(section) == section.batch_size == 4
    assert make_engine("inference", model, section, clips=1).at_once == 1


def test_an_export_is_made_once(clip_set, home, caplog):
    caplog.set_level("INFO")
    model, section = tiny(clip_set)
    for _ in range(2):
        make_engine("inference", model, section)
    assert sum("exporting the network" in record.message for record in caplog.records) == 1
    make_engine("inference", tiny(clip_set, seed=6)[0], section)
    make_engine("inference", *tiny(clip_set, "TEST.target_size=24"))
    make_engine("inference", *tiny(clip_set, "MODEL.image_mean=[0.5, 0.5, 0.5]"))
    assert len(names(home)) == 4


def test_an_unknown_engine_is_refused_with_the_known_before_anything_is_read(clip_set, capsys, monkeypatch):
    with pytest.raises(UserError, match="unknown engine 'tensorrt'; known: auto, inference, onnxruntime, paddle"):
        make_engine("tensorrt", *tiny(clip_set))
    monkeypatch.setattr(loader.Loader, "start", lambda _: pytest.fail("clips are read"))
    for entry in ("eval", "predict"):
        failing(entry, "unknown engine 'x'; known: auto", capsys, "--config", clip_set / "tiny.yaml", "--engine=x")
    with pytest.raises(UserError, match="unknown engine 'x'; known: auto"):
        Predictor("no such file", str(clip_set / "tiny.yaml"), engine="x")


def test_auto_goes_by_the_table(clip_set, home, monkeypatch):
    class Fast(Engine):
        available = True

        def is_available(self):
            return self.available

        def speed(self):
            return 9

        def make(self, task):
            return lambda clips: np.zeros((len(clips), task.model.config.MODEL.num_classes), np.float32)

    monkeypatch.setattr(ENGINES, "_entries", {"FAST": ("fast", Fast), "PADDLE": ("paddle", ENGINES.get("paddle"))})
    monkeypatch.setitem(ENGINES._entries, "AUTO", ("auto", Auto))
    model, section = tiny(clip_set)
    assert make_engine("auto", model, section)(random_clips(2, section)).sum() == 0
    Fast.available = False
    assert isinstance(make_engine("auto", model, section), Dygraph)


def test_an_edited_network_is_exported_anew(clip_set, home, tmp_path, monkeypatch):
    model, section = tiny(clip_set)
    (tmp_path / "mine.py").write_text("class Layer: pass")
    load_plugin(str(tmp_path / "mine.py"))
    for text in ("class Layer: pass", "class Layer: pass", "class Layer: other = True"):
        (tmp_path / "mine.py").write_text(text)
        cache._code.cache_clear()
        (code,) = cache.code_of(sys.modules["plugin_mine"].Layer)
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_code", lambda _, code=code: code)
            make_engine("inference", model, section)
    assert len(names(home)) == 2


def broken(*_):
    raise RuntimeError("first line\nno such operator")


def test_an_export_that_fails_is_an_error_only_if_it_was_asked_for(clip_set, home, no_onnx, monkeypatch, caplog):
    monkeypatch.setattr(ENGINES.get("inference"), "write", broken)
    model, section = tiny(clip_set)
    with pytest.raises(UserError, match="engine inference does not work here: no such operator$") as error:
        make_engine("inference", model, section)
    assert advised(error.value).endswith("; --engine=paddle always works")
    engine = make_engine("auto", model, section)
    assert isinstance(engine, Dygraph)
    assert "no such operator" in caplog.text
    assert engine(random_clips(2, section)).shape == (2, 4)
    assert names(home) == []


def test_an_export_that_computes_something_else_is_refused(clip_set, home, monkeypatch):
    engine = ENGINES.get("inference")
    load = engine.load

    def wrong(self, prefix):
        run, names, about = load(self, prefix)
        return lambda clips: run(clips) * np.float32(1.001), names, about

    monkeypatch.setattr(engine, "load", wrong)
    with pytest.raises(UserError, match="engine inference does not work here: its logits deviate .* by 0.001"):
        make_engine("inference", *tiny(clip_set))
    assert names(home) == []


def test_where_the_cache_cannot_be_written_the_export_is_made_in_a_temporary_folder(
    clip_set, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path / "file"))
    assert not isinstance(make_engine("auto", *tiny(clip_set)), Dygraph)
    assert "Not a directory" in caplog.text


def test_onnxruntime_says_what_to_install(clip_set, home, monkeypatch):
    for missing in ("paddle2onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(UserError, match="engine onnxruntime does not work here: .*onnxruntime") as error:
            make_engine("onnxruntime", *tiny(clip_set))
        assert "pip install 'paddle2onnx>=2.1'" in advised(error.value)
    assert names(home) == []


def test_an_export_with_20_flipped_bytes_is_made_again_and_computes_the_same(clip_set, home, caplog):
    model, section = tiny(clip_set)
    clips = random_clips(2, section)
    expected = make_engine("inference", model, section)(clips)
    (parameters,) = home.glob("*/model.pdiparams")
    data = bytearray(parameters.read_bytes())
    for place in np.random.RandomState(0).randint(0, len(data), 20):
        data[place] ^= 255
    parameters.write_bytes(data)
    assert np.array_equal(make_engine("inference", model, section)(clips), expected)
    assert "is damaged, or half made; making it again" in caplog.text
    assert parameters.read_bytes() != data


def test_threads_are_the_users_or_a_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("STNET_THREADS", "3")
    assert threads() == 3
    monkeypatch.delenv("STNET_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert threads() == 16
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "4")
    assert threads() == 4
