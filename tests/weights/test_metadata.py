"""Metadata saved with weights, and labels, in files that anyone may have written."""

import json
import os
import re

import numpy as np
import pytest
from conftest import tiny_settings, write_config
from entries import failing

from stnet.config import load_config
from stnet.models import model_section
from stnet.models.stnet.network import StNet
from stnet.utils.errors import UserError
from stnet.weights.formats import pickle_bytes, read_weights
from stnet.weights.labels import load_labels
from stnet.weights.metadata import saved_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights and the function that writes what stands beside it."""
    path = tmp_path_factory.mktemp("beside") / "w.pdparams"
    path.write_bytes(pickle_bytes({name: value.numpy() for name, value in StNet(18, 4, 2).state_dict().items()}))
    model = {**tiny_settings(path.parent)["MODEL"], "labels": ""}

    def write(config=None, **changes):
        sections = {name: {} for name in ("TRAIN", "VALID", "TEST", "INFER")}
        description = {"model": {**model, **changes}, "config": {**sections, **(config or {})}}
        description["sha256"] = {"pdparams": read_weights(path).digest}
        (path.parent / "w.json").write_text(json.dumps(description), encoding="utf-8")

    return path, write


HOSTILE = {
    "classes": ({}, {"num_classes": 10**9}, "MODEL.num_classes: expected at most 65536"),
    "frames": ({}, {"seg_num": 10**6}, "MODEL.seg_num: expected at most 16384"),
    "a clip": ({}, {"seg_num": 8000, "seglen": 3}, "a clip of 8000 segments of 3 frames"),
    "pixels": ({"INFER": {"short_size": 4096, "target_size": 4096, "seg_num": 9}}, {}, "INFER: a clip of 9 segments"),
    "a side": ({"INFER": {"short_size": 10**6}}, {}, "INFER.short_size: expected at most 4096"),
    "workers": ({"INFER": {"num_reader_threads": 10**6}}, {}, "INFER.num_reader_threads: expected at most 1024"),
    "sections": ({"TRAIN": [1], "INFER": [1]}, {}, "section INFER: expected keys and values"),
    "a section": ({"INFER": "x" * 10**6}, {}, "section INFER: expected keys and values, found 'x{59}$"),
    "a value": ({}, {"num_layers": "x" * 10**6}, "MODEL.num_layers: expected a whole number, found 'x{59}$"),
    "a name": ({}, {"name": "\x1b[2J" + "x" * 10**6}, r"unknown model '\\x1b\[2Jx{52}; known"),
    "a list": ({}, {"image_mean": [0.5] * 10**5}, "three numbers .*found .{60}$"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description_beside_weights_is_one_line(weights, clip_set, capsys, name):
    path, write = weights
    config, model, reason = HOSTILE[name]
    write(config, **model)
    capsys.readouterr()
    failing("predict", reason, capsys, clip_set / "val 0.mp4", "--weights", path, "--use_gpu=False")


def test_what_differs_from_a_description_is_cut(weights, clip_set, tmp_path, capsys, caplog):
    path, write = weights
    write({"INFER": [1]}, image_mean=["x" * 5000])
    flags = ["--config", write_config(tmp_path / "c.yaml", tiny_settings(clip_set)), "--save_dir", tmp_path]
    message = r"section INFER: expected keys and values, found \[1\]$"
    failing("predict", message, capsys, *flags, clip_set / "val 0.mp4", "--weights", path, "--use_gpu=False")
    assert re.search(r"image_mean is .* there and \['x{58} in the weights; ", caplog.text)


def test_a_description_that_nests_too_deeply_is_no_description(weights):
    path, _ = weights
    (path.parent / "w.json").write_text('{"model": ' + "[" * 100_000, encoding="utf-8")
    assert saved_config(path) is None


def test_hostile_labels_are_one_line(tmp_path):
    path = tmp_path / "labels.json"
    for content in (b"[" * 100_000, b'{"a": ' * 100_000, b"\xff", b"[1]", b'"ab"', b'{"a": NaN, "b": 0}'):
        path.write_bytes(content)
        for read in (lambda: load_labels(str(path), 2), lambda: load_labels(str(path), None)):
            with pytest.raises(UserError, match="labels file") as error:
                read()
            assert len(str(error.value)) < 300
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="it is a fifo"):
        load_labels(str(path), 2)


def test_a_hostile_config_is_one_line(tmp_path, capsys):
    from hostile_yaml import HOSTILE as HOSTILE_YAML

    for name, (text, _) in HOSTILE_YAML.items():
        (tmp_path / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(UserError, match="config file .* (is not valid YAML|cannot be read)") as error:
            load_config(tmp_path / "c.yaml", model_section)
        assert len(str(error.value)) < 500, name
        if isinstance(text, str):
            with pytest.raises(UserError, match="the value is not valid YAML"):
                load_config({}, model_section, [f"TRAIN.epoch={text}"])


def test_the_largest_settings_that_make_sense_are_taken(tmp_path):
    settings = tiny_settings(tmp_path)
    settings["MODEL"].update(seg_num=100, seglen=5, num_classes=65536, labels="")
    for name in ("TRAIN", "VALID", "TEST", "INFER"):
        settings[name].update(seg_num=100, short_size=360, target_size=320)
    settings["TEST"].update(num_clips=10, num_crops=3)
    config = load_config(write_config(tmp_path / "c.yaml", settings), model_section)
    assert np.prod([config.TEST.seg_num, config.MODEL.seglen, config.TEST.target_size**2]) == 51_200_000
