"""tools.run_deployed, copied out into an environment of its own, gives predict's numbers."""

import json
import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import tiny_settings, write_config
from entries import inference_model, predict, run
from installations import environment_of
from reports import shown

from tools import run_deployed

SIZES = {"float32": (256, 224), "uint8": (128, 112)}  # where frames stay as they are or grow, and where they shrink


def write_vp9(path):
    """A video whose width shrinks to 341 while its height grows to 256."""
    random = np.random.RandomState(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 400, 200, "yuv420p"
        for _ in range(7):
            picture = random.randint(0, 256, (25, 50, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def without_paddle(tmp_path_factory):
    """(Python without Paddle, an otherwise empty folder with the program)."""
    pytest.importorskip("paddle2onnx")
    folder = tmp_path_factory.mktemp("server")
    python = environment_of(folder / "environment", "onnxruntime", "numpy", "Pillow", "av>=14.2", "PyYAML")
    (folder / "work").mkdir()
    shutil.copy(run_deployed.__file__, folder / "work" / "classify.py")
    return python, folder / "work"


@pytest.fixture(scope="module")
def onnx_folder(clip_set, trained, tmp_path_factory):
    pytest.importorskip("paddle2onnx")
    folder = tmp_path_factory.mktemp("onnx")
    assert run(inference_model, *flags_of(clip_set, trained, folder), "--format=onnx", "--save_dir", folder) == 0
    return folder


def flags_of(clip_set, trained, folder, sizes=(32, 32)):
    settings = tiny_settings(clip_set)
    settings["INFER"].update(short_size=sizes[0], target_size=sizes[1], batch_size=1)
    config = write_config(folder / "config.yaml", settings)
    return ["--config", config, "--use_gpu=False", "--weights", trained / "STNET_final.pdparams"]


@pytest.mark.parametrize("dtype", SIZES)
def test_without_paddle_and_the_project_it_gives_the_numbers_of_predict(
    without_paddle, clip_set, trained, videos, tmp_path, dtype
):
    python, folder = without_paddle
    paths = [str(path) for path in sorted(videos.iterdir()) if path.suffix != ".pkl"]
    write_vp9(tmp_path / "vp9.webm")
    paths.append(str(tmp_path / "vp9.webm"))
    flags = flags_of(clip_set, trained, tmp_path, SIZES[dtype])
    bytes_in = ["--uint8"] if dtype == "uint8" else []
    assert run(inference_model, *flags, *bytes_in, "--format=onnx", "--save_dir", folder / dtype) == 0
    results = ["--engine=paddle", "--infer_topk=4", "--save_dir", tmp_path]
    assert run(predict, *flags, *results, *paths) == 0
    expected = {
        result["path"]: {row["label"]: row["probability"] for row in result["predictions"]}
        for result in json.loads((tmp_path / "predict_results.json").read_text())["results"]
    }
    words = [python, "-I", "classify.py", dtype, *paths, "--topk=4"]
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = shown(done.stdout)
    assert list(found) == paths
    for path in paths:
        assert found[path] == pytest.approx(expected[path], abs=1e-5)


def test_a_bad_video_is_named_and_the_others_go_on(onnx_folder, videos, tmp_path, capsys):
    (tmp_path / "noise.mp4").write_bytes(b"no video" * 100)
    good, pickled = str(videos / "three_frames.mp4"), str(videos / "clip_jpeg.pkl")
    capsys.readouterr()
    paths = [str(tmp_path / "none.mp4"), good, str(tmp_path / "noise.mp4"), pickled]
    assert run_deployed.main([str(onnx_folder), *paths]) == 3
    said = capsys.readouterr()
    assert list(shown(said.out)) == [good]
    assert said.err.splitlines() == [
        f"{paths[0]}: no such file",
        f"{paths[2]}: it cannot be decoded (Invalid data found when processing input)",
        f"{pickled}: it cannot be decoded (Invalid data found when processing input)",
    ]
    assert run_deployed.main([str(onnx_folder), pickled]) == 1


def test_a_folder_that_cannot_be_used_is_one_line(onnx_folder, tmp_path, capsys):
    assert run_deployed.main([str(tmp_path), "a.mp4"]) == 1
    assert capsys.readouterr().err.endswith("deploy.yaml: No such file or directory; inference writes it\n")
    shutil.copy(onnx_folder / "deploy.yaml", tmp_path)
    (tmp_path / "STNET.onnx").write_bytes(b"cut short")
    assert run_deployed.main([str(tmp_path), "a.mp4"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the model in {tmp_path} cannot be loaded: ")
    assert error.count("\n") == 1


def test_it_samples_as_the_reader_does():
    from reader.sampling import sample_frames

    for seg_num, seglen in ((25, 5), (3, 1), (1, 16)):
        for count in range(1, 300):
            assert run_deployed.sample(count, seg_num, seglen) == sum(sample_frames(count, seg_num, seglen), [])


def test_frames_scale_as_in_the_reader_whichever_side_shrinks_and_whichever_grows():
    from reader.transforms import ClipBuilder

    random = np.random.RandomState(0)
    for width, height in [(90, 40), (40, 90), (20, 200), (200, 20), (64, 64), (300, 31), (33, 300), (32, 50), (43, 33)]:
        frame = random.randint(0, 256, (height, width, 3), np.uint8)
        builder = ClipBuilder(1, 32, 24)
        builder.put(0, frame)
        assert np.array_equal(run_deployed.scale_and_crop(frame, 32, 24), builder.clip(np.arange(1))[0])


def test_it_imports_nothing_of_the_project():
    with open(run_deployed.__file__, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.lstrip().startswith(("import ", "from "))]
    assert {line[1].split(".")[0] for line in lines} == {
        "__future__", "argparse", "os", "sys", "collections", "typing", "av", "numpy", "yaml", "PIL", "onnxruntime",
        "paddle",
    }  # fmt: skip
