import ctypes
import os
import signal
import time

import numpy as np
import pytest

from stnet.config import load_config
from stnet.models import model_section
from stnet.reader import dataset as kinetics
from stnet.reader import loader
from stnet.reader.dataset import IsolatedReader
from stnet.reader.decode import ClipError
from stnet.reader.loader import build_loader
from stnet.utils.processes import ChildDied


def misbehave(word):
    """What a decoder may do."""
    if word == "hang":
        ctypes.PyDLL(None).sleep(60)  # holding the GIL, as decord does
    if word == "exit":
        os._exit(3)
    if word == "segfault":
        ctypes.string_at(0)
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "refuse":
        raise ClipError("no good")
    if word == "bug":
        raise ZeroDivisionError("a bug")
    return np.full((2, 3), len(word) % 256, np.uint8), word


@pytest.fixture
def reader():
    made = IsolatedReader(misbehave, (2, 3), 0.5)
    yield made
    made.close()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_arrays_and_labels_come_back(reader):
    for word in ("a", "bcd", "x" * 200_000):
        array, label = reader(word)
        assert label == word
        assert (array == len(word) % 256).all()
    kept, _ = reader("ab")
    reader("abc")
    assert (kept == 2).all()


@pytest.mark.parametrize(
    ("word", "message"),
    [("hang", "took more than 0.5 s"), ("exit", "ended itself .exit code 3"), ("segfault", "crashed .SIGSEGV"),
     ("kill", "crashed .SIGKILL")],
)  # fmt: skip
def test_a_child_that_hangs_or_dies_is_replaced(reader, word, message):
    reader("first")
    child = reader.child.pid
    with pytest.raises(ChildDied, match=message):
        reader(word)
    assert not alive(child)
    assert reader("next")[1] == "next"


def test_errors_of_the_reader_pass_through_and_bugs_bring_their_traceback(reader):
    reader("first")
    child = reader.child.pid
    with pytest.raises(ClipError, match="no good"):
        reader("refuse")
    with pytest.raises(RuntimeError, match="(?s)Traceback.*in misbehave.*ZeroDivisionError: a bug"):
        reader("bug")
    assert reader.child.pid == child


def test_the_child_ends_with_its_parent():
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        made = IsolatedReader(misbehave, (2, 3), 60)
        made("first")
        os.write(write_end, str(made.child.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    child = int(os.read(read_end, 20))
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def mischievous(clip_set, monkeypatch, folder, word, spared="", **options):
    """The training loader of the clip set, whose 'train 3.mp4' misbehaves with every decoder but the spared one."""
    read_clip = kinetics.read_clip

    def read(path, section, format, rng, decoder="", span=None):
        if path.endswith("train 3.mp4") and decoder != (spared or "none"):
            misbehave(word)
        return read_clip(path, section, format, rng, decoder)

    monkeypatch.setattr(kinetics, "read_clip", read)
    overrides = ["TRAIN.decode_timeout=1.0", "TRAIN.num_reader_threads=2", "TRAIN.max_bad_ratio=0.2"]
    config = load_config(clip_set / "tiny.yaml", model_section, overrides)
    return build_loader(config, "train", quarantine=str(folder / "quarantine.list"), **options)


def indices(made, epoch):
    """Clips that were read, each once: the last batch is filled up with the first ones."""
    return sorted({i for batch in made.epoch(epoch) for i in batch.indices})


@pytest.mark.parametrize("word", ["hang", "exit", "segfault"])
def test_an_epoch_completes_names_the_clip_and_later_epochs_skip_it(word, clip_set, monkeypatch, tmp_path, caplog):
    made = mischievous(clip_set, monkeypatch, tmp_path, word)
    others = [i for i in range(10) if i != 3]
    assert indices(made, 0) == others
    assert [r.message.split(":")[0] for r in caplog.records] == ["skipped train 3.mp4"]
    line = (tmp_path / "quarantine.list").read_text()
    assert line.startswith("train 3.mp4\t")
    assert indices(made, 1) == others
    again = mischievous(clip_set, monkeypatch, tmp_path, word)
    assert list(again.dataset.skip) == [3]
    assert indices(again, 0) == others
    assert (tmp_path / "quarantine.list").read_text() == line


@pytest.mark.parametrize("word", ["hang", "segfault"])
def test_a_clip_that_another_decoder_can_read_is_neither_lost_nor_put_into_quarantine(
    word, clip_set, monkeypatch, tmp_path, caplog
):
    made = mischievous(clip_set, monkeypatch, tmp_path, word, spared="opencv")
    assert indices(made, 0) == indices(made, 1) == list(range(10))
    assert not (tmp_path / "quarantine.list").exists()
    assert not caplog.records


def test_a_clip_that_is_merely_bad_is_not_put_into_quarantine(clip_set, monkeypatch, tmp_path):
    made = mischievous(clip_set, monkeypatch, tmp_path, "refuse")
    assert len(indices(made, 0)) == 9
    assert not (tmp_path / "quarantine.list").exists()


def test_a_bug_in_a_worker_shows_its_traceback_and_the_clip(clip_set, monkeypatch, tmp_path):
    made = mischievous(clip_set, monkeypatch, tmp_path, "bug")
    with pytest.raises(RuntimeError, match="(?s)the reader failed at train 3.mp4: .*ZeroDivisionError: a bug"):
        indices(made, 0)


def test_a_small_dev_shm_is_noticed_and_gone_around(clip_set, monkeypatch, tmp_path, caplog):
    made = mischievous(clip_set, monkeypatch, tmp_path, "nothing")
    small = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda path: small)
    assert indices(made, 0) == list(range(10))
    assert "/dev/shm has 0 MB free" in caplog.text
