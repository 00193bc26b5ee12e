import dataclasses
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import tiny_settings, write_config

from stnet import config as config_module
from stnet.cli import load_plugin
from stnet.config import OBSOLETE, SECTIONS, load_config
from stnet.models import model_section
from stnet.utils.errors import UserError
from stnet.weights.labels import load_labels

PROJECT = Path(__file__).parents[1]


def load(path, *overrides, **values):
    return load_config(path, model_section, overrides, values)


def changed(tmp_path, change):
    settings = tiny_settings(tmp_path)
    change(settings)
    return write_config(tmp_path / "c.yaml", settings)


def test_the_shipped_config_holds_the_original_values():
    config = load(PROJECT / "configs/stnet.yaml")
    assert (config.MODEL.num_classes, config.MODEL.num_layers) == (400, 50)
    assert (config.MODEL.seg_num, config.MODEL.seglen, config.MODEL.format) == (7, 5, "mp4")
    train = config.TRAIN
    assert (train.epoch, train.batch_size, train.learning_rate, train.momentum) == (60, 128, 0.01, 0.9)
    assert (train.l2_weight_decay, train.learning_rate_decay, train.total_videos) == (1e-4, 0.1, 224684)
    assert (train.short_size, train.target_size, train.num_reader_threads) == (256, 224, 12)
    assert (config.TEST.seg_num, config.TEST.batch_size, config.TEST.target_size) == (25, 4, 256)
    assert (config.INFER.seg_num, config.INFER.batch_size) == (25, 1)


@pytest.mark.parametrize("path", sorted(PROJECT.glob("configs/*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads(path):
    assert load(path).MODEL.name == "STNET"


def test_every_key_is_read_somewhere():
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("", "models", "models/stnet", "reader", "training", "inference", "weights")
        for path in (PROJECT / "stnet" / folder).glob("*.py")
    )
    classes = [model_section("STNET"), *SECTIONS.values()]
    keys = {name for cls in classes for name in config_module.keys_of(cls)}
    unread = [key for key in sorted(keys) if not re.search(rf"\.{key}\b", sources)]
    assert unread == []


def test_a_section_takes_seg_num_from_model_unless_it_has_its_own(tmp_path):
    config = load(write_config(tmp_path / "c.yaml", tiny_settings(tmp_path)))
    assert config.section("train").seg_num == 2
    assert config.section("test").seg_num == 3


def test_seglen_is_models_in_every_section_and_another_one_is_refused(tmp_path):
    path = write_config(tmp_path / "c.yaml", tiny_settings(tmp_path))
    config = load(path, "MODEL.seglen=3", "TEST.seglen=3", "INFER.seglen=null")
    assert [config.section(mode).seglen for mode in config_module.MODES] == [3, 3, 3, 3]
    assert sorted(note.split()[0] for note in config.notes) == ["INFER.seglen", "TEST.seglen"]
    assert "seglen" not in config.as_dict()["TEST"]
    with pytest.raises(UserError, match="TEST.seglen is 4 and MODEL.seglen 2: expected MODEL.seglen alone"):
        load(path, "TEST.seglen=4")


def test_overrides_win_and_keep_their_type(tmp_path):
    path = write_config(tmp_path / "c.yaml", tiny_settings(tmp_path))
    overrides = ["TRAIN.learning_rate=1e-3", "MODEL.seg_num=5", "TRAIN.filelist=a b=c.list"]
    config = load(path, *overrides, **{"MODEL.name": "stnet", "TRAIN.use_gpu": "auto", "MODEL.seg_num": 4})
    assert (config.TRAIN.learning_rate, config.MODEL.seg_num, config.TRAIN.filelist) == (0.001, 5, "a b=c.list")


def test_obsolete_keys_are_noted(tmp_path):
    def change(settings):
        settings["TRAIN"].update(num_gpus=8, buf_size=1024, to_static=True, fused_optimizer=True)
        settings["MODEL"].update(channels_last=True)

    config = load(changed(tmp_path, change))
    noted = {note.split()[0] for note in config.notes}
    assert noted == {
        "MODEL.channels_last", "TRAIN.buf_size", "TRAIN.num_gpus", "TRAIN.to_static", "TRAIN.fused_optimizer"
    }  # fmt: skip
    assert len(config.notes) == 5


def test_a_section_in_a_module_that_postpones_its_annotations_is_checked(tmp_path):
    code = "from __future__ import annotations\nimport dataclasses\nfrom stnet.config import ModelSection\n"
    (tmp_path / "postponed.py").write_text(
        f"{code}@dataclasses.dataclass\nclass Section(ModelSection):\n    num_layers: int = 5\n"
    )
    load_plugin(str(tmp_path / "postponed.py"))
    path = changed(tmp_path, lambda settings: settings["MODEL"].update(num_layers="many"))
    with pytest.raises(UserError, match="MODEL.num_layers: expected a whole number, found 'many'"):
        load_config(path, lambda _: sys.modules["plugin_postponed"].Section)


def original_settings(data):
    """stnet.yaml of the original's releases: 1.6 kept its data in `data` = ./dataset, later ones in ./data/dataset."""
    reading = {"short_size": 256, "num_reader_threads": 12, "buf_size": 1024}
    training = {**reading, "target_size": 224, "batch_size": 128}
    testing = {**reading, "seg_num": 25, "target_size": 256}
    return {
        "MODEL": {
            "name": "STNET", "format": "pkl", "num_classes": 400, "seg_num": 7, "seglen": 5,
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "num_layers": 50, "topk": 5,
        },
        "TRAIN": {
            **training, "epoch": 60, "num_gpus": 8, "use_gpu": True, "filelist": f"{data}/kinetics/train.list",
            "learning_rate": 0.01, "learning_rate_decay": 0.1, "l2_weight_decay": "1e-4", "momentum": 0.9,
            "total_videos": 224684, "pretrain_base": f"{data}/pretrained/ResNet50_pretrained",
        },
        "VALID": {**training, "filelist": f"{data}/kinetics/val.list"},
        "TEST": {**testing, "batch_size": 4, "filelist": f"{data}/kinetics/test.list"},
        "INFER": {
            **testing, "batch_size": 1, "filelist": f"{data}/kinetics/infer.list", "video_path": "",
            "kinetics_labels": f"{data}/kinetics_labels.json",
        },
    }  # fmt: skip


@pytest.mark.parametrize("data", ["./dataset", "./data/dataset"])
def test_the_originals_config_loads(tmp_path, monkeypatch, data):
    settings = original_settings(data)
    config = load(write_config(tmp_path / "stnet.yaml", settings))
    assert config.TRAIN.pretrain == f"{data}/pretrained/ResNet50_pretrained"
    assert config.MODEL.labels == f"{data}/kinetics_labels.json"
    renamed = {("TRAIN", "pretrain_base"), ("INFER", "kinetics_labels")}
    for name, section in settings.items():
        for key, value in section.items():
            if key not in OBSOLETE and (name, key) not in renamed:
                assert getattr(getattr(config, name), key) == (1e-4 if value == "1e-4" else value)
    noted = sorted(note.split()[0] for note in config.notes)
    assert noted == [
        "INFER.buf_size", "INFER.kinetics_labels", "TEST.buf_size", "TRAIN.buf_size", "TRAIN.num_gpus",
        "TRAIN.pretrain_base", "VALID.buf_size",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)  # Kinetics' class names come with the project
    assert load_labels(config.MODEL.labels, 400)[:2] == ["abseiling", "air_drumming"]


def test_a_key_under_its_new_name_counts_before_its_old_one(tmp_path):
    path = changed(tmp_path, lambda s: s["INFER"].update(kinetics_labels="old.json"))
    config = load(path, "MODEL.labels=new.json", "TRAIN.pretrain_base=w")
    assert (config.MODEL.labels, config.TRAIN.pretrain) == ("new.json", "w")
    assert config.notes == [
        "TRAIN.pretrain_base is taken as TRAIN.pretrain",
        "INFER.kinetics_labels is ignored: MODEL.labels is given",
    ]
    with pytest.raises(UserError, match="TRAIN.pretrain: expected text, found 3"):
        load(path, "TRAIN.pretrain_base=3")


@pytest.mark.parametrize("name", ["MODEL", *SECTIONS])
def test_a_line_in_obsolete_is_all_that_dropping_a_key_takes(name, monkeypatch):
    cls = {"MODEL": model_section("STNET"), **SECTIONS}[name]
    fields = [f for name, f in config_module.keys_of(cls).items() if name != "name"]
    values = {f.name: getattr(cls(**({"name": "STNET"} if name == "MODEL" else {})), f.name) for f in fields}
    for dropped in fields:
        left = dataclasses.make_dataclass("Left", [(f.name, f.type, f) for f in fields if f is not dropped])
        with pytest.raises(UserError, match=f"key {name}. '{dropped.name}' is unknown"):
            config_module._parse_section(left, values, name, "old.yaml", [])
        for line in (f"{name}.{dropped.name}", dropped.name):
            notes = []
            with monkeypatch.context() as patched:
                patched.setitem(OBSOLETE, line, "it does not matter")
                config_module._parse_section(left, values, name, "old.yaml", notes)
            assert notes == [f"{name}.{dropped.name} is ignored: it does not matter"]


def test_a_key_that_went_from_one_section_is_still_unknown_in_the_others(tmp_path, monkeypatch):
    monkeypatch.setitem(OBSOLETE, "TRAIN.cache", "frames are not kept")
    assert load(changed(tmp_path, lambda s: s["TRAIN"].update(cache=1))).notes
    with pytest.raises(UserError, match="key TEST. 'cache' is unknown"):
        load(changed(tmp_path, lambda s: s["TEST"].update(cache=1)))


def test_the_saved_form_loads_again(tmp_path):
    config = load(PROJECT / "configs/stnet.yaml")
    again = load(write_config(tmp_path / "saved.yaml", config.as_dict()))
    assert again.as_dict() == config.as_dict()


BAD = {
    "unknown key": (lambda s: s["TRAIN"].update(epohc=3), "key TRAIN. 'epohc' is unknown; did you mean 'epoch'"),
    "unknown section": (lambda s: s.update(TRIAN={}), "section 'TRIAN' is unknown; did you mean 'TRAIN'"),
    "missing section": (lambda s: s.pop("VALID"), "missing section VALID"),
    "text for a number": (
        lambda s: s["TRAIN"].update(epoch="ten"),
        "TRAIN.epoch: expected a whole number, found 'ten'",
    ),
    "float for an int": (lambda s: s["TRAIN"].update(epoch=1.5), "TRAIN.epoch: expected a whole number, found 1.5"),
    "bool for an int": (lambda s: s["TRAIN"].update(epoch=True), "TRAIN.epoch: expected a whole number, found True"),
    "text for a bool": (lambda s: s["TRAIN"].update(use_gpu="yes"), "TRAIN.use_gpu: expected True or False"),
    "zero batch": (lambda s: s["TRAIN"].update(batch_size=0), "TRAIN.batch_size: expected at least 1, found 0"),
    "not a number": (lambda s: s["TRAIN"].update(learning_rate=float("nan")), "TRAIN.learning_rate: expected at least"),
    "metrics not listed": (lambda s: s["MODEL"].update(metrics="TOPK"), "MODEL.metrics: expected a list"),
    "crop too large": (lambda s: s["TEST"].update(target_size=64), "TEST.target_size 64 is larger than"),
    "two means": (lambda s: s["MODEL"].update(image_mean=[0, 0]), "MODEL.image_mean: expected three numbers"),
    "zero std": (lambda s: s["MODEL"].update(image_std=[0, 1, 1]), "MODEL.image_std: expected positive"),
    "no name": (lambda s: s["MODEL"].pop("name"), "missing key MODEL.name"),
    "unknown model": (lambda s: s["MODEL"].update(name="TSN"), "unknown model 'TSN'; known: STNET"),
    "section is a list": (lambda s: s.update(TRAIN=[1]), "section TRAIN: expected keys and values"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_config_is_refused_with_the_key_at_fault(tmp_path, name):
    change, message = BAD[name]
    with pytest.raises(UserError, match=re.escape(message)):
        load(changed(tmp_path, change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN.epoch", "expected SECTION.key=value"),
        ("TRIAN.epoch=1", "did you mean 'TRAIN'"),
        ("TRAIN.epohc=1", "^override: key TRAIN. 'epohc' is unknown; did you mean 'epoch'"),
        ("TRAIN.epoch=x", "^override: TRAIN.epoch: expected"),
        ("TRAIN.epoch=[", "not valid YAML"),
    ],
)
def test_a_bad_override_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load(write_config(tmp_path / "c.yaml", tiny_settings(tmp_path)), text)


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="config file not found"):
        load(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1", encoding="utf-8")
    with pytest.raises(UserError, match="not valid YAML"):
        load(tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "binary.yaml")
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="expected sections"):
        load(tmp_path / "empty.yaml")


def test_yaml_1e_4_without_a_dot_is_a_number():
    assert isinstance(yaml.safe_load("1e-4"), str)  # why the loader converts
    assert load(PROJECT / "configs/stnet.yaml").TRAIN.l2_weight_decay == 1e-4
