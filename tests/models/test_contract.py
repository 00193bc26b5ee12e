"""What a model that gives nothing but a network gets from `Model`."""

from dataclasses import dataclass

import paddle
import pytest
from conftest import tiny_settings, write_config

from stnet.config import ModelSection, load_config
from stnet.models.model import MODELS, Model
from stnet.utils.errors import UserError
from stnet.weights.loading import check_description, load_model, start_training_from


@dataclass
class OwnSection(ModelSection):
    width: int = 3


class Own(Model):
    Section = OwnSection

    def build_network(self):
        return paddle.nn.Sequential(
            paddle.nn.Linear(2, self.config.MODEL.width), paddle.nn.Linear(3, self.config.MODEL.num_classes)
        )


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(MODELS, "_entries", {**MODELS._entries, "OWN": ("OWN", Own)})
    settings = tiny_settings(tmp_path)
    settings["MODEL"] = {"name": "own", "num_classes": 4, "labels": ""}
    return load_config(write_config(tmp_path / "own.yaml", settings), lambda _: OwnSection)


def test_its_last_layer_is_its_head_and_its_keys_are_what_it_is_told_by(own):
    model = Own(own, "test")
    assert model.head == "1."
    assert model.own_settings() == {"width": 3}
    assert model.original_names() == {}
    assert model.backbone({}, {}) is None


def test_without_published_weights_training_starts_from_random_values_and_use_needs_a_file(own, caplog):
    caplog.set_level("INFO")
    start_training_from(Own(own, "train"), "")
    assert "starting from random values" in caplog.text
    with pytest.raises(UserError, match="no weights of own are published") as error:
        load_model(own, "test", "")
    assert error.value.hint == "set --weights to a file"


def test_its_own_keys_are_compared_with_those_of_the_weights(own):
    saved = {"model": {"width": 5, "num_classes": 4}}
    with pytest.raises(UserError, match="width is 3 in the config and 5 in the weights"):
        check_description("w", saved, Own(own, "test"))


def test_a_file_without_names_is_refused_where_the_model_has_no_order(own, tmp_path):
    from stnet.weights.lod_tensor import tensor_bytes

    (tmp_path / "w").write_bytes(tensor_bytes(paddle.ones([2, 3]).numpy()))
    with pytest.raises(UserError, match="tensors without names, and this model has no order of them"):
        load_model(own, "test", str(tmp_path / "w"))
