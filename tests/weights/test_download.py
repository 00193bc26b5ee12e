import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from golden_params import golden_param
from servers import Server

from stnet.models.stnet.names import backbone_names, original_to_structured
from stnet.utils.errors import UserError
from stnet.weights import download
from stnet.weights.download import released
from stnet.weights.formats import combined_bytes, read_weights
from stnet.weights.lod_tensor import tensor_bytes

PROJECT = Path(__file__).parents[2]
WEIGHTS = combined_bytes({name: np.full((40, 50), i, "float32") for i, name in enumerate("abc")})


def archive(files, top="ResNet50_pretrained"):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}" if top else name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


ARCHIVE = archive({"a": tensor_bytes(np.ones((3, 4), "float32")), "b": tensor_bytes(np.zeros(5, "float32"))})


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path / "home of 权重"))
    monkeypatch.setenv("STNET_DOWNLOAD_TIMEOUT", "0.4")
    monkeypatch.setattr(download, "PAUSE", 0.01)
    with Server({"w.pdparams": WEIGHTS, "ResNet50_pretrained.tar.gz": ARCHIVE}) as running:
        monkeypatch.setenv("STNET_WEIGHTS_URL", running.url)
        yield running


def home():
    return Path(download.weights_home())


def visible():
    return sorted(p.name for p in home().iterdir() if not p.name.startswith(".")) if home().exists() else []


@pytest.mark.parametrize("ranges", [True, False], ids=["with Range", "without Range"])
@pytest.mark.parametrize(
    ("behaviours", "requests"),
    [([], 1), ([500, 503], 3), (["stall"], 2), (["cut"], 2), (["cut", "cut", "cut"], 4), (["long"], None)],
    ids=["well", "500 twice", "stall", "cut", "cut thrice", "announces too much"],
)
def test_a_server_that_recovers_gives_the_right_file(server, behaviours, requests, ranges):
    server.behaviours, server.ranges = list(behaviours), ranges
    path = Path(released("w.pdparams"))
    assert path.read_bytes() == WEIGHTS
    assert visible() == ["w.pdparams", "w.pdparams.sha256"]
    assert requests is None or len(server.asked) == requests
    if behaviours == ["cut"]:
        assert server.asked[1][1] == f"bytes={len(WEIGHTS) // 2}-"
    asked = len(server.asked)
    assert released("w.pdparams") == str(path)
    assert len(server.asked) == asked  # the cache is used


@pytest.mark.parametrize(
    ("behaviours", "message"),
    [
        ([404], "the server answers 404"),
        ([500] * 9, "the server answers 500"),
        (["silent"] * 20, "timed out"),
        (["short"] * 9, "what the server sent is not usable .*tensor 1: the data of shape"),
    ],
    ids=["404", "500 for ever", "silent for ever", "announces too little"],
)
@pytest.mark.parametrize("ranges", [True, False], ids=["with Range", "without Range"])
def test_a_server_that_does_not_gives_a_clear_error_and_no_file(server, behaviours, message, ranges):
    server.behaviours, server.ranges = list(behaviours), ranges
    with pytest.raises(UserError, match=message) as error:
        released("w.pdparams", hint="weights")
    text = str(error.value)
    assert f"{server.url}/w.pdparams" in text
    assert text.endswith(f"put w.pdparams at {home()}/w.pdparams")
    assert error.value.hint == "weights"
    assert not (home() / "w.pdparams").exists()
    assert not (home() / "w.pdparams.sha256").exists()


def test_a_file_cut_where_a_tensor_ends_is_refused_by_the_callers_check(server):
    def check(path):
        weights = read_weights(path)
        if len(weights.tensors) != 3:
            raise UserError("not three tensors")
        return weights

    server.behaviours = ["two thirds"]
    with pytest.raises(UserError, match="what the server sent is not usable .not three tensors"):
        released("w.pdparams", check=check)
    assert visible() == []
    assert len(read_weights(released("w.pdparams", check=check)).tensors) == 3


def left_by_a_process(server, name, size):
    """As a process leaves it that was killed when `size` bytes were there."""
    home().mkdir()
    server.behaviours = ["cut", 404]
    with pytest.raises(UserError, match="404"):
        download.download(f"{server.url}/{name}", str(home() / f"{name}.part"))
    os.truncate(home() / f"{name}.part", size)
    server.behaviours, server.asked = [], []


def test_a_later_process_goes_on_from_a_partial_file(server):
    left_by_a_process(server, "w.pdparams", 1000)
    assert Path(released("w.pdparams")).read_bytes() == WEIGHTS
    assert server.asked == [("/w.pdparams", "bytes=1000-")]
    assert visible() == ["w.pdparams", "w.pdparams.sha256"]


def test_a_later_process_puts_a_whole_partial_file_in_place_without_asking(server):
    home().mkdir()
    download.download(f"{server.url}/w.pdparams", str(home() / "w.pdparams.part"))
    assert Path(released("w.pdparams")).read_bytes() == WEIGHTS
    assert len(server.asked) == 1


OTHER = combined_bytes({name: np.full((40, 50), i + 7, "float32") for i, name in enumerate("abc")})


@pytest.mark.parametrize("vouches", [True, False], ids=["with If-Range", "without If-Range"])
@pytest.mark.parametrize("tags", [True, False], ids=["with ETag", "without ETag"])
def test_a_file_that_changes_half_way_is_fetched_from_the_start(server, tags, vouches):
    assert len(OTHER) == len(WEIGHTS)
    server.tags, server.vouches, server.later = tags, vouches, {"w.pdparams": OTHER}
    server.behaviours = ["changed"]
    assert Path(released("w.pdparams")).read_bytes() == OTHER
    assert server.asked[1][1] == (f"bytes={len(WEIGHTS) // 2}-" if tags else None)


@pytest.mark.parametrize("vouches", [True, False], ids=["with If-Range", "without If-Range"])
def test_a_file_that_changes_between_two_processes_is_fetched_from_the_start(server, vouches):
    left_by_a_process(server, "w.pdparams", 1000)
    server.files, server.vouches = {"w.pdparams": OTHER}, vouches
    assert Path(released("w.pdparams")).read_bytes() == OTHER


def test_a_range_that_was_not_asked_for_is_not_taken(server):
    server.behaviours = ["cut", "elsewhere"]
    assert Path(released("w.pdparams")).read_bytes() == WEIGHTS
    assert [asked for _, asked in server.asked] == [None, f"bytes={len(WEIGHTS) // 2}-", None]


@pytest.mark.parametrize("length", ["well", "no length"])
def test_a_file_larger_than_any_is_given_up(server, length, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    server.behaviours = [length]
    with pytest.raises(UserError, match=r"cannot be downloaded: it is of .*more than the 1000( bytes)? that are taken"):
        released("w.pdparams")
    assert len(server.asked) == 1
    assert visible() == []


def test_a_body_without_length_is_taken(server):
    server.behaviours = ["no length"]
    assert Path(released("w.pdparams")).read_bytes() == WEIGHTS


def test_a_server_that_drips_is_given_up_and_the_user_told(server, caplog):
    caplog.set_level("INFO")
    server.behaviours = ["drip"] * 9
    with pytest.raises(UserError, match=r"\d+ bytes in \d+ s; less than 10000 a second is too slow"):
        released("w.pdparams")
    assert "trying again: " in caplog.text
    assert len(server.asked) == 4
    assert 40 < (home() / "w.pdparams.part").stat().st_size < 4000  # kept for the next time


@pytest.mark.parametrize("junk", [b"<html>login</html>", WEIGHTS + b"more"], ids=["another page", "too long"])
def test_a_partial_file_of_something_else_is_thrown_away(server, junk):
    home().mkdir()
    (home() / "w.pdparams.part").write_bytes(junk)
    assert Path(released("w.pdparams")).read_bytes() == WEIGHTS
    assert visible() == ["w.pdparams", "w.pdparams.sha256"]


def test_an_archive_becomes_a_folder(server):
    server.behaviours = [500, "cut"]
    path = released("ResNet50_pretrained")
    assert sorted(read_weights(path).tensors) == ["a", "b"]
    assert visible() == ["ResNet50_pretrained", "ResNet50_pretrained.sha256"]


def test_an_archive_without_a_top_folder_becomes_one_too(server):
    server.files["ResNet50_pretrained.tar.gz"] = archive({"a": tensor_bytes(np.ones(3, "float32"))}, top="")
    assert sorted(read_weights(released("ResNet50_pretrained")).tensors) == ["a"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"<html>", "damaged or no tar archive"), (ARCHIVE[:-40], "not usable"), (archive({}), "no Paddle tensors"),
     (archive({"notes": b"hello"}), "no Paddle tensors"), (WEIGHTS, "damaged or no tar archive")],
    ids=["html", "cut archive", "empty", "no tensors", "not an archive"],
)  # fmt: skip
def test_a_wrong_archive_gives_a_clear_error_and_no_file(server, data, message):
    server.files["ResNet50_pretrained.tar.gz"] = data
    with pytest.raises(UserError, match=message):
        released("ResNet50_pretrained")
    assert visible() == []
    assert [p for p in home().iterdir() if not p.name.endswith(".lock")] == []


def evil_archive(name="x", kind=tarfile.REGTYPE, link=""):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        data = tensor_bytes(np.ones(2, "float32"))
        member.size = len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize(
    "data",
    [evil_archive("../outside"), evil_archive("a/../../outside"), evil_archive("/tmp/stnet_outside"),
     evil_archive("x", tarfile.SYMTYPE, "/etc/passwd"), evil_archive("x", tarfile.LNKTYPE, "../../outside"),
     evil_archive("x", tarfile.CHRTYPE), evil_archive("x", tarfile.FIFOTYPE)],
    ids=["..", "inner ..", "absolute", "symlink", "hard link", "device", "fifo"],
)  # fmt: skip
def test_malicious_archives_are_refused_and_write_nothing_outside(server, data, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    server.files["ResNet50_pretrained.tar.gz"] = data
    with pytest.raises(UserError, match="leads out of the folder|but a link, a device"):
        released("ResNet50_pretrained")
    assert visible() == []
    assert not Path("/tmp/stnet_outside").exists()
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [home(), home() / ".ResNet50_pretrained.lock"]


def test_an_archive_larger_than_allowed_is_refused(tmp_path):
    from stnet.weights.archive import unpack

    (tmp_path / "a.tar.gz").write_bytes(archive({"zeros": bytes(100_000)}))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="unpacks to more than 50000 bytes"):
        unpack(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"), max_bytes=50_000)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cached_file_that_changed_is_refused_at_every_later_use(server):
    path = Path(released("w.pdparams"))
    data = bytearray(WEIGHTS)
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="the content is not what .*w.pdparams.sha256 records"):
        read_weights(path)
    folder = Path(released("ResNet50_pretrained"))
    (folder / "a").write_bytes(tensor_bytes(np.zeros((3, 4), "float32")))
    with pytest.raises(UserError, match="ResNet50_pretrained/a: the content is not"):
        read_weights(folder)
    (folder / "a").unlink()
    with pytest.raises(UserError, match="ResNet50_pretrained/a: the content is not"):
        read_weights(folder)


@pytest.mark.parametrize("name", ["w.pdparams", "ResNet50_pretrained"])
def test_processes_at_once_cause_one_download(server, name):
    code = f"from stnet.weights.download import released; print(released({name!r}))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = {process.communicate()[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert said == {str(home() / name)}
    assert len(server.asked) == 1


def test_offline_mode_says_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path))
    monkeypatch.setenv("STNET_WEIGHTS_URL", "none")
    with pytest.raises(UserError, match=rf"downloading is off .*put x.pdparams at {tmp_path}/x.pdparams$"):
        released("x.pdparams")


def test_no_server_at_all_is_one_clear_message(server, monkeypatch):
    monkeypatch.setenv("STNET_WEIGHTS_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/w.pdparams cannot be downloaded: .*refused"):
        released("w.pdparams")


# Through run.sh, with an empty home ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    """Files of full size: a StNet-50 of release 1.6 and an ImageNet ResNet-50, both of golden parameters."""
    shapes = json.loads((PROJECT / "tests/golden/params.json").read_text())["layers_50"]
    tensors = {name: golden_param(name, shape) for name, shape in shapes.items()}
    backbone = {name: tensor_bytes(tensors[name]) for name in backbone_names(50)}
    backbone["conv1_weights"] = tensor_bytes(golden_param("conv1_weights", [64, 3, 7, 7]))
    backbone["fc_0.b_0"] = tensor_bytes(np.ones(1000, "float32"))
    assert sorted(original_to_structured(50)) == sorted(tensors)
    return {"STNET_final.pdparams": combined_bytes(tensors), "ResNet50_pretrained.tar.gz": archive(backbone)}


def run_sh(clip_set, folder, *words, **environment):
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", "HOME": str(folder / "home"), **environment}
    made.pop("STNET_WEIGHTS_HOME", None)
    small = ["-o", "MODEL.num_layers=50", "-o", "MODEL.num_classes=400", "-o", "MODEL.seglen=5", "-o", "MODEL.labels="]
    command = ["bash", str(PROJECT / "run.sh"), words[0], "STNET", str(clip_set / "tiny.yaml"), *words[1:], *small]
    return subprocess.run(command, cwd=folder, env=made, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_eval_and_train_fetch_what_they_need_into_an_empty_home(clip_set, tmp_path, published):
    (tmp_path / "home").mkdir()
    with Server(published) as server:
        mirror = {"STNET_WEIGHTS_URL": server.url}
        done = run_sh(clip_set, tmp_path, "eval", **mirror)
        assert done.returncode == 0, done.stderr
        cache = tmp_path / "home" / ".paddle" / "weights"
        assert (cache / "STNET_final.pdparams").read_bytes() == published["STNET_final.pdparams"]
        found = json.loads((tmp_path / "results" / "eval_results.json").read_text())
        assert found["weights"] == str(cache / "STNET_final.pdparams")

        done = run_sh(clip_set, tmp_path, "train", epoch="1", valid_interval="0", **mirror)
        assert done.returncode == 0, done.stderr
        assert "starting from the backbone in" in done.stderr
        assert "265 tensors; all else is new" in done.stderr
        assert [path for path, _ in server.asked] == ["/STNET_final.pdparams", "/ResNet50_pretrained.tar.gz"]

        resumed = run_sh(clip_set, tmp_path, "train", "-o", "MODEL.num_classes=4", epoch="1", valid_interval="0",
                         save_dir="tuned", resume=str(cache / "STNET_final.pdparams"))  # fmt: skip
        assert resumed.returncode == 0, resumed.stderr
        assert "holds weights alone: fine-tuning from them, from epoch 0" in resumed.stderr


@pytest.mark.slow
def test_without_the_final_file_the_older_release_is_taken(clip_set, tmp_path, published):
    with Server({"STNET.pdparams": published["STNET_final.pdparams"]}) as server:
        done = run_sh(clip_set, tmp_path, "eval", f"--weights_url={server.url}", f"--weights_home={tmp_path}/my cache")
        assert done.returncode == 0, done.stderr
        assert [path for path, _ in server.asked] == ["/STNET_final.pdparams", "/STNET.pdparams"]
        assert (tmp_path / "my cache" / "STNET.pdparams").exists()


def test_without_network_or_fitting_weights_one_line_says_what_to_do(clip_set, tmp_path):
    done = run_sh(clip_set, tmp_path, "train", STNET_WEIGHTS_URL="none")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--pretrain=none to start from random values" in done.stderr
    done = run_sh(clip_set, tmp_path, "eval", STNET_WEIGHTS_URL="http://127.0.0.1:9", STNET_DOWNLOAD_TIMEOUT="1")
    *log, error = done.stderr.splitlines()
    assert done.returncode == 1
    assert all(re.match(r"\[(INFO|WARNING) ", line) for line in log), done.stderr
    assert error.startswith("error: ")
    assert "set --weights to a file" in error
    flags = {"PYTHON": sys.executable, "use_gpu": "False"}
    other = subprocess.run(["bash", str(PROJECT / "run.sh"), "train", "STNET", str(clip_set / "tiny.yaml")],
                           env={**os.environ, **flags}, capture_output=True, text=True, check=False)  # fmt: skip
    assert other.returncode == 1
    assert "no ImageNet weights are published for 18 layers (only for 50)" in other.stderr
