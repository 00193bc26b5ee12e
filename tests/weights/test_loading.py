"""What was saved beside weights, compared with the configuration that uses them."""

import json
import shutil

import pytest
from conftest import tiny_settings, write_config
from entries import failing

from stnet import flags
from stnet.config import load_config
from stnet.models import get_model, model_section
from stnet.utils.errors import UserError
from stnet.weights.checkpoint import read_description
from stnet.weights.loading import check_description
from stnet.weights.metadata import load_saved_config, saved_config


def compare(path, config, mode, labels=None):
    check_description(str(path), read_description(str(path)), get_model("STNET", config, mode), labels)


@pytest.fixture
def said(clip_set, trained, caplog):
    """Function from a mode and overrides of the configuration to what is said of weights made without them."""

    def check(mode, *overrides):
        caplog.clear()
        config = load_config(clip_set / "tiny.yaml", model_section, overrides)
        compare(trained / "STNET_final.pdparams", config, mode)
        return [record.getMessage().split("configuration: ")[1] for record in caplog.records]

    return check


def test_other_sizes_segments_and_formats_than_the_runs_are_said_in_one_line(said):
    assert said("test") == said("infer") == []
    sizes = ["TEST.short_size=64", "TEST.target_size=56", "TEST.seg_num=7"]
    words = "TEST.short_size is 64 and was 32; TEST.target_size is 56 and was 32; TEST.seg_num is 7 and was 3"
    assert said("test", *sizes) == [words]
    assert said("infer", "MODEL.seg_num=5") == ["INFER.seg_num is 5 and was 2"]
    assert said("infer", "MODEL.format=pkl") == ["MODEL.format is pkl and was mp4"]


@pytest.fixture
def configured(clip_set, trained, tmp_path, caplog):
    """Function from changes of MODEL in a config and flags to the configuration that counts, and what the log says."""

    def load(changes, *words):
        caplog.clear()
        settings = tiny_settings(clip_set)
        settings["MODEL"].update(changes)
        settings["TEST"]["filelist"] = "of the config"
        config = write_config(tmp_path / "other.yaml", settings)
        args = flags.parse("eval", "", [f"--config={config}", f"--weights={trained}/STNET_final.pdparams", *words])
        return load_saved_config(args), caplog.text

    return load


def test_a_config_that_does_not_fit_gives_way_to_the_one_beside_the_weights(configured, clip_set):
    config, said = configured({"num_classes": 5, "num_layers": 50, "labels": ""}, "-o", "TEST.batch_size=3")
    assert (config.MODEL.num_classes, config.MODEL.num_layers, config.TEST.batch_size) == (4, 18, 3)
    assert config.TEST.filelist == str(clip_set / "val.list")
    assert (
        "num_classes is 5 there and 4 in the weights; num_layers is 50 there and 18 in the weights; the one beside"
        in said
    )


def test_a_config_that_fits_stays_and_so_does_what_is_typed(configured):
    config, said = configured({"labels": ""})
    assert (config.TEST.filelist, said) == ("of the config", "")
    config, said = configured({"num_classes": 5, "labels": ""}, "-o", "MODEL.num_classes=4")
    assert (config.MODEL.num_classes, config.TEST.filelist, said) == (4, "of the config", "")
    config, said = configured({"labels": ""}, "-o", "MODEL.num_classes=5")  # refused when the weights are read
    assert (config.MODEL.num_classes, config.TEST.filelist, said) == (5, "of the config", "")


def test_weights_without_their_description_are_said_before_anything_fails(clip_set, trained, tmp_path, caplog, capsys):
    weights = shutil.copy(trained / "STNET_final.pdparams", tmp_path / "x.pdparams")
    said = f"{tmp_path}/x.json, which says with which configuration and class names x.pdparams was trained, is missing"
    words = ["--config", clip_set / "tiny.yaml", f"--weights={weights}", "-o", "MODEL.labels=none.json"]
    failing("predict", "labels file none.json cannot be read", capsys, *words)
    assert said in caplog.text
    caplog.clear()
    for name in ("STNET_final.pdparams", "none.pdparams"):
        saved_config(trained / name)
    assert caplog.text == ""


def test_training_may_differ_from_testing_on_purpose(said):
    assert said("test", "TRAIN.short_size=64", "TRAIN.target_size=56", "INFER.target_size=16") == []


@pytest.mark.parametrize("config", [None, 5, {}, {"TEST": None}, {"TEST": {"target_size": None}}])
def test_a_description_without_those_settings_says_nothing(clip_set, trained, tmp_path, config, caplog):
    about = json.loads((trained / "STNET_final.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps({**about, "config": config}))
    (tmp_path / "x.pdparams").write_bytes((trained / "STNET_final.pdparams").read_bytes())
    compare(tmp_path / "x.pdparams", load_config(clip_set / "tiny.yaml", model_section), "infer")
    assert caplog.records == []


def test_class_names_of_another_kind_are_a_conflict(clip_set, trained, tmp_path):
    about = json.loads((trained / "STNET_final.json").read_text())
    (tmp_path / "x.pdparams").write_bytes((trained / "STNET_final.pdparams").read_bytes())
    config = load_config(clip_set / "tiny.yaml", model_section)
    for labels in (["a", "b", "c"], ["a", "b", "c", "x"], 5):
        (tmp_path / "x.json").write_text(json.dumps({**about, "labels": labels}))
        with pytest.raises(UserError, match="class names differ"):
            compare(tmp_path / "x.pdparams", config, "infer", ["a", "b", "c", "d"])
