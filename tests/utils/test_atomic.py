"""Files that are whole or not there, and what killed writers leave."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stnet.utils.atomic import exclusive_lock, remove_leftovers, write_json, write_text

WRITES = """
import sys
from stnet.utils.atomic import write_atomically
def write(temporary):
    open(temporary, "w").write("half")
    print("half", flush=True)
    sys.stdin.read()
write_atomically(sys.argv[1], write)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written half of a.parquet."""
    command = [sys.executable, "-c", WRITES, str(tmp_path / "a.parquet")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], text=True, **pipes) as process:
        assert process.stdout.readline() == "half\n"
        yield process
        process.kill()


@pytest.mark.parametrize("target", ["", "a.parquet"])
def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path, writer, target):
    (tmp_path / ".a.parquet.writing-old").touch()
    (tmp_path / "a.parquet.writing-mine").touch()
    (tmp_path / ".b.writing-old").touch()
    remove_leftovers(tmp_path, target)
    (living,) = tmp_path.glob(".a.parquet*")
    assert (tmp_path / ".b.writing-old").exists() == bool(target)
    assert (tmp_path / "a.parquet.writing-mine").exists()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert living.read_text() == "half"
    remove_leftovers(tmp_path, target)
    assert not living.exists()


def test_a_living_writer_beside_a_claimed_folder_ends_well(tmp_path, writer):
    with exclusive_lock(tmp_path):
        writer.communicate("")
    assert writer.returncode == 0
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, (float("inf"), "inf", None)], "c": True})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.5, [None, "inf", None]], "c": True}


def test_a_temporary_file_is_gone_where_writing_fails(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        from stnet.utils.atomic import write_csv

        write_csv(tmp_path / "a.csv", ["\ud800"], [], errors="strict")
    write_text(tmp_path / "b", "b")
    assert os.listdir(tmp_path) == ["b"]
