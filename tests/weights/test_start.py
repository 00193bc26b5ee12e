"""Which weights training starts from: --pretrain and TRAIN.pretrain."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_settings, write_config
from entries import run, train
from servers import Server

from stnet.cli import advised
from stnet.config import load_config
from stnet.models import get_model, model_section
from stnet.models.stnet.names import original_to_structured
from stnet.utils.errors import UserError
from stnet.weights.formats import combined_bytes
from stnet.weights.loading import start_training_from

SHAPES = json.loads((Path(__file__).parents[1] / "golden" / "params.json").read_text())["layers_50"]


@pytest.fixture(scope="module")
def published():
    """A StNet as released, each tensor full of one number of its own."""
    return combined_bytes({name: np.full(SHAPES[name], i / 1000, "float32") for i, name in enumerate(SHAPES, 1)})


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.delenv("STNET_WEIGHTS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home" / ".paddle" / "weights"


def model_of(tmp_path, **settings):
    changed = tiny_settings(tmp_path)
    changed["MODEL"].update({"num_layers": 50, "seglen": 5, **settings})
    return get_model("STNET", load_config(write_config(tmp_path / "c.yaml", changed), model_section), "train")


@pytest.mark.parametrize("name", ["STNET_final.pdparams", "STNET.pdparams"])
def test_the_released_stnet_is_fetched_once_and_its_head_starts_anew(
    tmp_path, empty_home, published, monkeypatch, caplog, name
):
    caplog.set_level("INFO")
    model = model_of(tmp_path)
    head = model.network.state_dict()["fc.weight"].numpy().copy()
    with Server({name: published}) as server:
        monkeypatch.setenv("STNET_WEIGHTS_URL", server.url)
        start_training_from(model, "released")
        asked = len(server.asked)
        start_training_from(model_of(tmp_path), "released")
        assert len(server.asked) == asked
    assert sorted(path.name for path in empty_home.glob("[!.]*")) == [name, f"{name}.sha256"]
    tensors, names = model.network.state_dict(), original_to_structured(50)
    for i, original in enumerate(SHAPES, 1):
        if not original.startswith("fc_0"):
            assert (tensors[names[original]].numpy() == np.float32(i / 1000)).all()
    assert (tensors["fc.weight"].numpy() == head).all()
    assert "is for 400 classes: fc.weight, fc.bias start anew" in caplog.text
    assert f"starting from the STNET in {empty_home / name}" in caplog.text


def test_with_as_many_classes_the_head_is_the_released_one(tmp_path, empty_home, published):
    empty_home.mkdir(parents=True)
    (empty_home / "STNET_final.pdparams").write_bytes(published)
    model = model_of(tmp_path, num_classes=400)
    start_training_from(model, "released")
    number = 1 + list(SHAPES).index("fc_0.w_0")
    assert (model.network.state_dict()["fc.weight"].numpy() == np.float32(number / 1000)).all()


def test_what_the_released_stnet_does_not_fit_is_one_line(tmp_path, empty_home):
    with pytest.raises(UserError, match="weights .num_layers 50. do not fit: num_layers is 18$"):
        start_training_from(model_of(tmp_path, num_layers=18), "released")
    with pytest.raises(UserError, match="downloading is off .*STNET_final.pdparams at ") as error:
        start_training_from(model_of(tmp_path), "released")
    assert advised(error.value).endswith("; set --pretrain to a file, or --pretrain=none to start from random values")


def test_the_config_says_it_where_the_flag_does_not(clip_set, tmp_path, capsys):
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", tmp_path, "--dry_run", "-o", "TRAIN.pretrain=no such"]
    assert run(train, *flags) == 1
    assert "weights no such: no such file" in capsys.readouterr().err
    assert run(train, *flags, "--pretrain=none") == 0


def test_the_folder_that_the_originals_config_names_is_the_released_one(tmp_path, empty_home, caplog):
    model = model_of(tmp_path)
    with pytest.raises(UserError, match=r"ResNet50_pretrained.tar.gz \(unpacked\) at .*home/.paddle/weights"):
        start_training_from(model, "./data/dataset/pretrained/ResNet50_pretrained")
    assert "ResNet50_pretrained is not there: taking the released weights of this name" in caplog.text
    with pytest.raises(UserError, match="weights pretrained/w: no such file"):
        start_training_from(model, "pretrained/w")
