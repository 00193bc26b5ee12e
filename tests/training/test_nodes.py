"""Several machines, played by several run.sh on this one: each has its launcher and its ranks."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from training_helpers import train_losses

from stnet.weights.formats import read_weights

RUN = Path(__file__).parents[2] / "run.sh"


class Machine:
    """One `bash run.sh train`; all its processes carry a mark in their environment."""

    started = []

    def __init__(self, clip_set, folder, *flags, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self.mark, self.log = uuid.uuid4().hex, folder / f"run{len(self.started)}.log"
        one_thread = {"STNET_THREADS": "1", "OMP_NUM_THREADS": "1"}  # sums of several threads round in another way
        made = {**os.environ, **one_thread, "PYTHON": sys.executable, "use_gpu": "False", "STNET_TEST_MARK": self.mark}
        command = ["bash", str(RUN), "train", "STNET", str(clip_set / "tiny.yaml"), "--pretrain=none"]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, "--fix_random_seed=True", "--log_interval=1", *flags],
                cwd=folder, env={**made, "save_dir": "out", **environment}, stdout=log, stderr=log,
            )  # fmt: skip
        self.started.append(self)

    def kill(self):
        """As if the power went."""
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if self.mark.encode() in Path(f"/proc/{name}/environ").read_bytes():
                    os.kill(int(name), signal.SIGKILL)
        self.process.wait()

    def ends(self):
        """The exit code."""
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs: {self.said()}") from None

    def said(self):
        return self.log.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def none_outlives_its_test():
    yield
    while Machine.started:
        Machine.started.pop().kill()


def two_machines(clip_set, folders, *flags, **environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        Machine(clip_set, folder, *flags, nnodes="2", node_rank=str(i), master=master, **environment)
        for i, folder in enumerate(folders)
    ]


@pytest.mark.long
def test_two_machines_lose_one_go_on_and_equal_one_machine(clip_set, tmp_path):
    flags = ["--epoch=4", "-o", "TRAIN.save_interval=1"]
    one = Machine(clip_set, tmp_path / "one", *flags, nproc="4")
    assert one.ends() == 0, one.said()
    expected = train_losses(tmp_path / "one" / "out")
    assert len(expected) == 12
    shared = tmp_path / "two"
    first, second = two_machines(clip_set, [shared, shared], *flags, nproc="2")
    while len(train_losses(shared / "out")) < 5:
        assert first.process.poll() is None, first.said()
        time.sleep(0.05)
    second.kill()
    assert first.ends() != 0
    assert len(train_losses(shared / "out")) < 12
    for machine in two_machines(clip_set, [shared, shared], *flags, "--resume=auto", nproc="2"):
        assert machine.ends() == 0, machine.said()
    assert train_losses(shared / "out") == expected
    whole, resumed = (read_weights(tmp_path / name / "out" / "STNET_final.pdparams") for name in ("one", "two"))
    assert whole.tensors.keys() == resumed.tensors.keys()
    for name, tensor in whole.tensors.items():
        assert np.array_equal(tensor, resumed.tensors[name]), name
    assert sorted(path.name for path in (shared / "out" / "log").iterdir()) == ["node0", "node1"]


@pytest.mark.parametrize("resume", ["auto", pytest.param("out/STNET_epoch0.pdparams", marks=pytest.mark.long)])
def test_a_machine_that_does_not_see_the_checkpoint_ends_all_with_one_line(clip_set, trained, tmp_path, resume):
    (tmp_path / "a" / "out").mkdir(parents=True)
    for suffix in ("json", "pdparams", "pdopt"):
        shutil.copy(trained / f"STNET_epoch0.{suffix}", tmp_path / "a" / "out")
    machines = two_machines(clip_set, [tmp_path / "a", tmp_path / "b"], f"--resume={resume}")
    for number, machine in enumerate(machines):
        assert machine.ends() != 0, machine.said()
        said = (machine.log.parent / "out" / "log" / f"node{number}" / "workerlog.0").read_text()
        assert len(re.findall("^error: ", said, re.M)) == 1, said
        assert "Traceback" not in said
    said = (tmp_path / "a" / "out" / "log" / "node0" / "workerlog.0").read_text()
    assert re.search(
        r"^error: rank 1 (cannot start: weights .*no such file|would start otherwise .*save_dir)$", said, re.M
    )
    assert train_losses(tmp_path / "a" / "out") == []
