"""The Predictor in threads, in daemonic processes and in forked ones, as web servers and task queues use it."""

import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stnet.inference.predictor import Predictor
from stnet.timeline.windows import Timeline

WAIT = 60  # seconds after which a process is taken to hang
FIRST_IN_A_THREAD = """
import sys, threading
from stnet.inference.predictor import Predictor

def use():
    predictor = Predictor(sys.argv[1], sys.argv[2], engine="paddle", device="cpu")
    print(*next(predictor.predict(sys.argv[3])).scores)

thread = threading.Thread(target=use)
thread.start()
thread.join()
use()
"""
AFTER_A_THREAD = """
import multiprocessing, sys, threading
from stnet.inference.predictor import Predictor

predictor = Predictor(sys.argv[1], sys.argv[2], engine="paddle", device="cpu")

def use(put):
    put([result.scores for result in predictor.predict(sys.argv[3:])])

def use_in_a_thread(put):
    thread = threading.Thread(target=use, args=(put,))
    thread.start()
    thread.join()

found = []
use_in_a_thread(found.append)
context = multiprocessing.get_context("fork")
for target, daemon in ((use, True), (use_in_a_thread, False)):
    answers = context.Queue()
    process = context.Process(target=target, args=(answers.put,), daemon=daemon)
    process.start()
    try:
        found.append(answers.get(timeout=30))
    finally:
        process.kill()
assert len(found[0]) == 3 and found == found[:1] * 3, found
"""


@pytest.fixture(scope="module")
def predictor(trained, clip_set):
    return Predictor(trained / "STNET_final.pdparams", clip_set / "tiny.yaml", engine="paddle", device="cpu")


def use(predictor, paths, put):
    """Hand over what comes of paths."""
    put([(result.scores, result.error) for result in predictor.predict(paths)])


def use_timeline(predictor, path, put):
    """Hand over the windows of a video."""
    parts = predictor.engines.timeline_stages
    timeline = Timeline(parts, str(path), predictor.config.section("infer"), 0.5, 0.25)
    put([(window.start, window.end, window.logits.tolist()) for window in timeline.windows()])


def in_a_process(predictor, paths, daemon, target=use):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=target, args=(predictor, paths, answers.put), daemon=daemon)
    process.start()
    try:
        return answers.get(timeout=WAIT)
    finally:
        process.kill()
        process.join()


def test_threads_and_daemonic_and_forked_processes_get_the_scores_of_the_main_thread(predictor, clip_set, tmp_path):
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    paths = [clip_set / "val 3.mp4", tmp_path / "damaged.mp4", clip_set / "val 0.mp4"]
    here, found = [], []
    use(predictor, paths, here.append)
    threads = [threading.Thread(target=use, args=(predictor, paths, found.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    found += [in_a_process(predictor, paths, daemon) for daemon in (True, False)]
    assert [bool(error) for _, error in here[0]] == [False, True, False]
    assert found == here * 4


def test_a_daemonic_process_makes_the_timeline_of_the_main_thread(trained, clip_set, videos):
    predictor = Predictor(trained / "STNET_final.pdparams", clip_set / "tiny.yaml", engine="paddle", device="cpu")
    there = in_a_process(predictor, videos / "wide_h264.mp4", daemon=True, target=use_timeline)
    here = []
    use_timeline(predictor, videos / "wide_h264.mp4", here.append)
    assert there == here[0]
    assert len(there) > 5


def test_a_forked_process_makes_its_own_engine(predictor, clip_set):
    parents = predictor.engine
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=lambda: answers.put(predictor.engine is parents))
    process.start()
    assert answers.get(timeout=WAIT) is False
    process.join(WAIT)
    assert predictor.engine is parents


def test_a_first_predictor_in_a_thread_leaves_the_main_thread_able_to_make_one(trained, clip_set):
    words = [trained / "STNET_final.pdparams", clip_set / "tiny.yaml", clip_set / "val 0.mp4"]
    script = [sys.executable, "-c", FIRST_IN_A_THREAD, *map(str, words)]
    ended = subprocess.run(
        script, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.splitlines()
    assert first == second


def test_processes_forked_after_a_thread_has_predicted_get_its_scores(trained, clip_set):
    words = [trained / "STNET_final.pdparams", clip_set / "tiny.yaml", *(clip_set / f"val {i}.mp4" for i in range(3))]
    script = [sys.executable, "-c", AFTER_A_THREAD, *map(str, words)]
    ended = subprocess.run(
        script, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
