"""stnet.backends.cache: what is kept, what is believed."""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import paddle
import pytest

from stnet.backends import cache
from stnet.backends.cache import cached_export, export_cache_of

NETWORK = paddle.nn.Linear(1, 1)
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache of its own."""
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    cache._folder_of_this_process.cache_clear()
    return tmp_path / "home" / "exports"


def write(folder):
    (Path(folder) / "sub").mkdir()
    (Path(folder) / "model").write_bytes(b"network")
    (Path(folder) / "sub" / "more").write_bytes(b"of it")


def never(folder):
    pytest.fail(f"made again: {folder}")


def names(home):
    return sorted(path.name for path in home.iterdir() if path.name != ".lock")


def swap_for_a_link(folder):
    (folder / "model").rename(folder.parent.parent / "model")
    (folder / "model").symlink_to(folder.parent.parent / "model")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model").write_bytes(b"netw0rk"),
        lambda folder: (folder / "sub" / "more").write_bytes(b"of i"),
        lambda folder: (folder / "model").unlink(),
        lambda folder: (folder / "another").write_bytes(b""),
        lambda folder: (folder / "sha256.json").unlink(),
        lambda folder: (folder / "sha256.json").write_text("{}"),
        lambda folder: (folder / "sha256.json").write_text("{"),
        swap_for_a_link,
        lambda folder: os.mkfifo(folder / "fifo"),
    ],
    ids=["changed", "cut", "removed", "added", "no record", "empty record", "half a record", "link", "fifo"],
)
def test_an_export_that_is_not_what_was_made_is_made_again(change, home, caplog):
    folder = Path(cached_export(NETWORK, [], write))
    assert cached_export(NETWORK, [], never) == str(folder)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    change(folder)
    assert cached_export(NETWORK, [], write) == str(folder)
    assert f"the export in {folder} is damaged, or half made; making it again" in caplog.text
    assert (folder / "model").read_bytes() == b"network"
    assert cached_export(NETWORK, [], never) == str(folder)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(mode, home, caplog):
    planted = Path(cached_export(NETWORK, [], write))
    home.chmod(mode)
    before = sorted(home.rglob("*"))
    folder = Path(cached_export(NETWORK, [], write))
    assert f"others may write into {home} (owner {os.getuid()}, mode {mode:o}): not used" in caplog.text
    assert planted not in (folder, *folder.parents)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert cached_export(NETWORK, [], never) == str(folder)  # within this process
    assert sorted(home.rglob("*")) == before
    home.chmod(0o700)
    assert cached_export(NETWORK, [], never) == str(planted)


def test_a_folder_of_another_owner_is_not_used(home, caplog):
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    home.mkdir(parents=True, mode=0o755)
    os.chown(home, 12345, -1)
    assert home not in Path(cached_export(NETWORK, [], write)).parents
    assert "(owner 12345, mode 755): not used" in caplog.text


def test_what_was_used_for_want_of_a_safe_folder_ends_with_the_process(home, tmp_path):
    home.mkdir(parents=True)
    home.chmod(0o777)
    code = (
        "import paddle; from stnet.backends.cache import cached_export\n"
        "print(cached_export(paddle.nn.Linear(1, 1), [], lambda folder: open(f'{folder}/model', 'w').close()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env={**os.environ, "TMPDIR": str(tmp_path)},
                          stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert tmp_path in folder.parents
    assert not folder.parent.exists()


def test_where_nothing_can_be_written_the_export_ends_with_the_process(tmp_path, home, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path / "file"))
    folder = Path(cached_export(NETWORK, [], write))
    assert (folder / "model").read_bytes() == b"network"
    assert folder.parent.name.startswith("stnet-exports-")
    assert f"{tmp_path}/file/exports cannot be written (Not a directory): the export ends with this" in caplog.text


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="there is no folder that nobody can write")
@pytest.mark.parametrize("engine", ["inference", "onnxruntime"])
def test_exports_are_made_with_a_home_that_cannot_be_written(engine, clip_set, trained, tmp_path):
    if engine == "onnxruntime":
        pytest.importorskip("paddle2onnx")
    (tmp_path / "tmp").mkdir()
    made = {name: value for name, value in os.environ.items() if name != "STNET_WEIGHTS_HOME"}
    made.update(HOME="/proc/sys", TMPDIR=str(tmp_path / "tmp"))
    flags = [f"--engine={engine}", "--use_gpu=False", "--weights", trained / "STNET_final.pdparams"]
    words = [sys.executable, PROJECT / "predict.py", clip_set / "val 0.mp4", *flags]
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "/proc/sys/.paddle/weights/exports cannot be written (" in done.stderr
    assert "does not work here" not in done.stderr
    assert [path.name for path in (tmp_path / "tmp").iterdir() if path.name.startswith("stnet-")] == []


def test_a_new_folder_is_the_users_alone_whatever_the_umask(home):
    before = os.umask(0)
    try:
        folder = Path(cached_export(NETWORK, [], write))
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (home, folder)] == [0o700, 0o700]


@pytest.mark.parametrize("ahead", [-100, 10 * 365 * 86400], ids=["clock goes on", "clock was set back 10 years"])
def test_the_last_used_exports_are_kept(ahead, home):
    folders = []
    for i in range(8):
        folders.append(cached_export(NETWORK, [i], write))
        os.utime(folders[-1], (time.time() + ahead + i,) * 2)
    assert cached_export(NETWORK, [0], never) == folders[0]
    folders.append(cached_export(NETWORK, [8], write))
    assert names(home) == sorted(os.path.basename(folders[i]) for i in (0, *range(2, 9)))
    folders.append(cached_export(NETWORK, [9], write))
    assert names(home) == sorted(os.path.basename(folders[i]) for i in (0, *range(3, 10)))


def test_what_killed_processes_left_is_removed_and_nothing_else(home):
    kept = cached_export(NETWORK, [], write)
    for name in ("tmp-abandoned", "0" * 32, "notes", "tmp.txt"):
        (home / name).mkdir()
    (home / "tmp-abandoned" / "sha256.json").touch()  # killed before it was put into its place
    cached_export(NETWORK, [], never)
    assert names(home) == sorted([os.path.basename(kept), "notes", "tmp.txt"])


def test_an_export_that_fails_leaves_nothing(home):
    def fail(folder):
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_export(NETWORK, [], fail)
    assert names(home) == []


def test_of_two_processes_at_once_one_makes_the_export_and_the_other_takes_it(home):
    begun, found = threading.Event(), []

    def slow(folder):
        begun.set()
        other.start()
        other.join(0.3)  # it has to wait
        assert other.is_alive()
        write(folder)

    other = threading.Thread(target=lambda: found.append(cached_export(NETWORK, [], never)))
    found.append(cached_export(NETWORK, [], slow))
    other.join(10)
    assert begun.is_set()
    assert found == [found[0]] * 2


def test_what_fails_to_be_made_leaves_both_places_and_what_is_made_goes_where_it_belongs(home):
    def fail(folder):
        write(folder)
        raise ZeroDivisionError

    def into(place):
        return lambda folder: write(folder) or place

    with export_cache_of(NETWORK, [["first"], ["second"]], "", "exports") as cached:
        cached.make(into(0))
        with pytest.raises(ZeroDivisionError):
            cached.make(fail)
        assert [cached.is_whole(0), cached.is_whole(1)] == [True, False]
        assert cached.make(into(1)) == 1
        assert [cached.is_whole(0), cached.is_whole(1)] == [True, True]
    assert names(home) == sorted(os.path.basename(folder) for folder in cached.folders)
