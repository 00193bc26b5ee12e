"""Weights that no StNet could have, and records that prove nothing."""

import io
import os
import pickle
import tarfile

import numpy as np
import paddle
import pytest
from records import record_lines

from stnet.utils.errors import UserError
from stnet.weights.archive import unpack
from stnet.weights.formats import combined_bytes, read_weights
from stnet.weights.lod_tensor import HEADER, tensor_bytes
from stnet.weights.state_dict import load_weights


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_file_is_refused_without_waiting_for_it(kind, tmp_path):
    path = "/dev/zero"
    if kind == "fifo":
        path = tmp_path / "w.pdparams"
        os.mkfifo(path)
    with pytest.raises(UserError, match=f"weights {path}: it is a {kind}, expected a file"):
        read_weights(path)


def test_a_fifo_beside_the_tensors_of_a_folder_is_not_opened(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a").write_bytes(tensor_bytes(np.ones(3, "float32")))
    os.mkfifo(tmp_path / "w" / "b")
    assert list(read_weights(tmp_path / "w").tensors) == ["a"]
    os.mkfifo(tmp_path / "w.sha256")
    with pytest.raises(UserError, match="w.sha256 cannot be read: it is a fifo"):
        read_weights(tmp_path / "w")


def test_what_is_larger_than_any_stnet_is_not_read(tmp_path):
    for name in ("big", "w/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 3 << 30)
    with pytest.raises(UserError, match="it is of 3221225472 bytes, more than the 2147483648 that are read"):
        read_weights(tmp_path / "big")
    with pytest.raises(UserError, match="a folder of 3221225472 bytes"):
        read_weights(tmp_path / "w")
    (tmp_path / "many").write_bytes(tensor_bytes(np.ones(1, "float32")) * 10_001)
    with pytest.raises(UserError, match="more than 10000 tensors"):
        read_weights(tmp_path / "many")
    (tmp_path / "levels").write_bytes(HEADER[:4] + (2**40).to_bytes(8, "little") + bytes(8) * 9)
    (tmp_path / "levels").write_bytes(
        tensor_bytes(np.ones(1, "float32")) + HEADER[:4] + (9).to_bytes(8, "little") + bytes(8) * 9
    )
    with pytest.raises(UserError, match="tensor 1: 9 LoD levels"):
        read_weights(tmp_path / "levels")


def test_numbers_that_float32_cannot_hold_are_refused_with_the_tensors_name(tmp_path):
    for value, said in ((1e39, "beyond the range of float32"), (-np.inf, "that are not finite"), (1e38, None)):
        (tmp_path / "w").write_bytes(pickle.dumps({"fine": np.ones(2), "a.weight": np.array([0.0, value])}, 2))
        if said is None:
            assert read_weights(tmp_path / "w").tensors["a.weight"][1] == 1e38
            continue
        with pytest.raises(UserError, match=f"tensor a.weight holds values {said}"):
            read_weights(tmp_path / "w")


@pytest.mark.parametrize("kind", ["pickle", "combined"])
def test_a_negative_variance_is_refused_and_sets_nothing(kind, tmp_path):
    network = paddle.nn.Sequential(paddle.nn.BatchNorm2D(2))
    names = {"a": "0.weight", "b": "0.bias", "c": "0._mean", "d": "0._variance"}
    tensors = {"a": [5, 5], "b": [5, 5], "c": [-1, 1], "d": [1, -1e-7]}
    tensors = {name: np.array(value, "float32") for name, value in tensors.items()}
    data = combined_bytes(tensors)
    if kind == "pickle":
        data = pickle.dumps({**{names[n]: t for n, t in tensors.items() if n != "d"}, "0.running_var": tensors["d"]}, 2)
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(UserError, match="tensor 0._variance holds variances below 0"):
        load_weights(network, read_weights(str(tmp_path / "w"), names))
    assert network[0].weight.numpy().tolist() == [1, 1]


@pytest.mark.parametrize("record", ["", "\n\n", "no digest\n", "0" * 63 + "  w\n", "é\n", "<html>"])
def test_a_record_that_records_nothing_is_no_proof(record, tmp_path):
    (tmp_path / "w").write_bytes(tensor_bytes(np.ones(3, "float32")))
    (tmp_path / "w.sha256").write_text(record, encoding="latin1")
    with pytest.raises(UserError, match="w.sha256 is no record of SHA-256 digests|w.sha256 cannot be read"):
        read_weights(tmp_path / "w")


def test_a_record_as_sha256sum_writes_it_is_a_proof(tmp_path):
    data = tensor_bytes(np.ones(3, "float32"))
    (tmp_path / "w").write_bytes(data)
    digest = record_lines({"w": data}).split()[0]
    for line in (f"{digest}  w\n", f"{digest} *w\n", f"{digest.upper()}  w\n", f"{digest}\n"):
        (tmp_path / "w.sha256").write_text(line)
        assert len(read_weights(tmp_path / "w").tensors) == 1


def test_a_tensor_that_the_record_of_its_folder_leaves_out_is_refused(tmp_path):
    (tmp_path / "w").mkdir()
    contents = {name: tensor_bytes(np.ones(3, "float32")) for name in "ab"}
    for name, data in contents.items():
        (tmp_path / "w" / name).write_bytes(data)
    (tmp_path / "w.sha256").write_text(record_lines({"a": contents["a"]}))
    with pytest.raises(UserError, match="w/b: .*w.sha256 does not record it"):
        read_weights(tmp_path / "w")
    (tmp_path / "w.sha256").write_text(record_lines(contents).replace("  b", ""))
    with pytest.raises(UserError, match="the content is not what .*w.sha256 records"):
        read_weights(tmp_path / "w")


def tar_with_header(kind, size):
    """A gzipped tar archive with a file whose PAX or GNU name header is of `size` bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1, format=kind) as tar:
        member = tarfile.TarInfo("x" * size if kind == tarfile.GNU_FORMAT else "x")
        member.pax_headers = {"comment": "x" * size}
        tar.addfile(member)
    return made.getvalue()


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["PAX", "GNU"])
def test_a_header_of_an_archive_is_limited(kind, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "a.tar.gz").write_bytes(tar_with_header(kind, 1_000_000))
    with pytest.raises(UserError, match="a header of 1000[0-9]+ bytes"):
        unpack(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == []
    (tmp_path / "a.tar.gz").write_bytes(tar_with_header(kind, 200))
    unpack(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
    assert [set(name) for name in os.listdir(tmp_path / "out")] == [{"x"}]


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_negative_size_is_refused(kind, tmp_path):
    (tmp_path / "out").mkdir()
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[124:136] = kind, b"\xff" * 10 + b"\x80\0"  # in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(2048))
    with pytest.raises(UserError, match="a.tar (is damaged|unpacks to more)"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == []


def test_headers_upon_headers_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 5
    (tmp_path / "a.tar").write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")) * 3000)
    with pytest.raises(UserError, match="a.tar is damaged or no tar archive"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "out"))


def test_an_archive_that_unpacks_to_headers_for_ever_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.DIRTYPE, 0
    (tmp_path / "a.tar").write_bytes(member.tobuf() * 1000)
    with pytest.raises(UserError, match="unpacks to more than 100000 bytes"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "out"), max_bytes=100_000)


def test_a_sparse_file_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    member = tarfile.TarInfo("x")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[483:495] = tarfile.GNUTYPE_SPARSE, b"00010000000\0"  # 2 MiB, of which nothing is here
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(UserError, match="a sparse file"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == []
