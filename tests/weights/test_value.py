"""Weights are a value: read once, hashed once, compared, then set."""

import builtins
import hashlib
import os

import numpy as np
import pytest
from entries import eval_entry, predict, run, train
from servers import Server

from stnet.models import get_model
from stnet.utils.errors import UserError
from stnet.weights import checkpoint
from stnet.weights.formats import pickle_bytes
from stnet.weights.loading import start_training_from


class Counted:
    """How often files were opened for reading, and bytes hashed, while it was in use."""

    def __init__(self, monkeypatch):
        self.opened, self.hashed = [], 0
        real_open, real_sha256 = builtins.open, hashlib.sha256

        def counting_open(file, mode="r", *args, **options):
            if "r" in mode and isinstance(file, (str, os.PathLike)):
                self.opened.append(os.path.basename(file))
            return real_open(file, mode, *args, **options)

        def counting_sha256(data=b"", **options):
            digest = _Hash(real_sha256(**options), self)
            digest.update(data)
            return digest

        monkeypatch.setattr(builtins, "open", counting_open)
        monkeypatch.setattr(hashlib, "sha256", counting_sha256)


class _Hash:
    def __init__(self, digest, counted):
        self.digest, self.counted = digest, counted

    def update(self, data):
        self.counted.hashed += memoryview(data).nbytes
        self.digest.update(data)

    def hexdigest(self):
        return self.digest.hexdigest()


@pytest.mark.parametrize("entry", [eval_entry, predict], ids=["eval", "predict"])
@pytest.mark.parametrize("engine", ["paddle", pytest.param("inference", marks=pytest.mark.slow)])
def test_a_program_reads_and_hashes_its_weights_once(entry, engine, clip_set, trained, tmp_path, monkeypatch):
    weights = trained / "STNET_final.pdparams"
    flags = ["--config", clip_set / "tiny.yaml", "--weights", weights, f"--engine={engine}", "--save_dir", tmp_path]
    assert run(entry, *flags) == 0  # makes the export
    counted = Counted(monkeypatch)
    assert run(entry, *flags) == 0
    assert counted.opened.count("STNET_final.pdparams") == 1
    exported = counted.opened.count("model.pdiparams") * weights.stat().st_size  # checked at each use
    assert counted.hashed - exported < 1.1 * weights.stat().st_size


@pytest.mark.parametrize("flag", ["pretrain", "resume"])
def test_training_reads_what_it_starts_from_once(flag, clip_set, trained, tmp_path, monkeypatch):
    source = trained / "STNET_final.pdparams" if flag == "pretrain" else trained / "STNET_epoch0"
    counted = Counted(monkeypatch)
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", tmp_path, f"--{flag}", source, "--dry_run"]
    assert run(train, *flags) == 0
    assert [counted.opened.count(f"{source.stem}.{suffix}") for suffix in ("pdparams", "pdopt")] == [
        1,
        int(flag == "resume"),
    ]


def test_a_download_is_read_once_and_recorded_by_what_was_read(tiny_config, tmp_path, monkeypatch):
    model = get_model("STNET", tiny_config, "train")
    model.released, model.released_for = ("tiny.pdparams",), {}
    data = pickle_bytes({name: value.numpy() for name, value in model.network.state_dict().items()})
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path))
    with Server({"tiny.pdparams": data}) as server:
        monkeypatch.setenv("STNET_WEIGHTS_URL", server.url)
        counted = Counted(monkeypatch)
        start_training_from(model, "released")
    assert [counted.opened.count(name) for name in ("tiny.pdparams.part", "tiny.pdparams")] == [1, 0]
    assert (tmp_path / "tiny.pdparams.sha256").read_text() == f"{hashlib.sha256(data).hexdigest()}  tiny.pdparams\n"


def test_no_check_changes_the_network(tiny_config, tmp_path):
    model = get_model("STNET", tiny_config, "train")
    before = {name: value.numpy().copy() for name, value in model.network.state_dict().items()}
    tensors = {name: value + 1 for name, value in before.items()}
    tensors["fc.weight"] = np.zeros([3, 9], "float32")  # of another width, not only for other classes
    del tensors["temporal1.bn.bias"]
    (tmp_path / "w").write_bytes(pickle_bytes(tensors))
    for load in (start_training_from, lambda model, path: checkpoint.load(path, model)):
        with pytest.raises(UserError, match="1 missing: temporal1.bn.bias"):
            load(model, str(tmp_path / "w"))
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in model.network.state_dict().items())
