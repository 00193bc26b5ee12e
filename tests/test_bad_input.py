"""Bad input to the entries: one readable line, exit code 1, nothing lost."""

import shutil

import paddle
import pytest
from entries import failing, run, train

LISTS = {
    "empty list": ("", "is empty: expected one clip a line"),
    "all files missing": ("none1.mp4 0\nnone2.mp4 1\n", "none of the first 2 files exists"),
    "label out of range": ("{clip} 9\n", "line 1: label 9 is outside 0..3"),
    "label not a number": ("{clip} dog\n", "line 1: label 'dog' is not a whole number"),
    "0-byte file": ("{bad} 0\n", "the file is empty|cannot be read"),
}


@pytest.mark.parametrize("entry", ["train", "eval"])
@pytest.mark.parametrize("name", LISTS)
def test_a_bad_list_stops_with_one_line(name, entry, clip_set, trained, tmp_path, capsys):
    text, message = LISTS[name]
    (tmp_path / "bad.mp4").write_bytes(b"")
    path = tmp_path / "x.list"
    path.write_text(text.format(clip=clip_set / "val 0.mp4", bad=tmp_path / "bad.mp4"))
    flags = [f"--save_dir={tmp_path}", "-o", f"TRAIN.filelist={path}", "-o", f"TEST.filelist={path}"]
    flags += ["--pretrain=none"] if entry == "train" else [f"--weights={trained}/STNET_final.pdparams"]
    failing(entry, message, capsys, "--config", clip_set / "tiny.yaml", *flags)


@pytest.mark.parametrize("entry", ["train", "eval", "predict"])
def test_a_missing_config_or_list_stops_with_one_line(entry, clip_set, trained, tmp_path, capsys):
    failing(entry, "config file not found: none.yaml", capsys, "--config=none.yaml")
    section = {"train": "TRAIN", "eval": "TEST", "predict": "INFER"}[entry]
    missing = "list file not found: none.list"
    failing(
        entry,
        missing if entry != "predict" else "no video is given, and INFER.filelist none.list does not exist",
        capsys,
        "--config",
        clip_set / "tiny.yaml",
        "-o",
        f"{section}.filelist=none.list",
    )


BAD_VIDEOS = {
    "0 bytes": (lambda path: path.write_bytes(b""), "no clip could be read; .* the file is empty"),
    "text": (lambda path: path.write_text("no video"), "no clip could be read; .* no frame can be decoded"),
    "missing": (lambda path: None, "no clip could be read; .*x.mp4: no such file"),
    "empty folder": (lambda path: path.mkdir(), "video_path .*x.mp4: the folder holds no video files"),
}


def failing_on(video, message, clip_set, trained, capsys):
    """predict.py fails on a video."""
    flags = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams"]
    failing("predict", message, capsys, *flags, "--save_dir", video.parent, "--video_path", video)


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_predicting_what_is_no_video_stops_with_one_line(name, clip_set, trained, tmp_path, capsys):
    make, message = BAD_VIDEOS[name]
    make(tmp_path / "x.mp4")
    failing_on(tmp_path / "x.mp4", message, clip_set, trained, capsys)


def test_a_truncated_video_stops_with_one_line(videos, clip_set, trained, tmp_path, capsys):
    (tmp_path / "cut.mp4").write_bytes((videos / "wide_h264.mp4").read_bytes()[:20000])
    failing_on(tmp_path / "cut.mp4", "no frame can be decoded", clip_set, trained, capsys)


def test_unknown_model_and_wrong_labels_stop_with_one_line(clip_set, tmp_path, capsys):
    config = clip_set / "tiny.yaml"
    failing("train", "unknown model 'TSN'; known: STNET", capsys, "--config", config, "--model_name=TSN")
    failing(
        "predict",
        "names 4 classes, but MODEL.num_classes is 5",
        capsys,
        "--config",
        config,
        "-o",
        "MODEL.num_classes=5",
    )
    (tmp_path / "half.json").write_text('["a", "b", "c", "\\ud83d"]')
    half = f"MODEL.labels={tmp_path}/half.json"
    failing("predict", r"'\\ud83d' is half a character", capsys, "--config", config, "-o", half)
    failing("predict", "labels file .* cannot be read", capsys, "--config", config, "-o", "MODEL.labels=none.json")


def test_weights_of_another_class_count_are_refused(clip_set, trained, tmp_path, capsys):
    flags = ["--config", clip_set / "tiny.yaml", "-o", "MODEL.num_classes=5", "-o", "MODEL.labels="]
    flags += ["--filelist", clip_set / "infer.list", "--weights"]
    described = "trained with another configuration: num_classes is 5 in the config and 4 in the weights"
    failing("predict", described, capsys, *flags, trained / "STNET_final.pdparams")
    shutil.copy(trained / "STNET_final.pdparams", tmp_path / "bare.pdparams")
    undescribed = r"2 of another shape: fc.weight is \[256, 4\], expected \[256, 5\]"
    failing("predict", undescribed, capsys, *flags, tmp_path / "bare.pdparams")


def test_an_unwritable_folder_stops_with_one_line(clip_set, trained, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    failing(
        "eval",
        "cannot write into .*/file/sub: Not a directory; set --save_dir",
        capsys,
        "--config",
        clip_set / "tiny.yaml",
        "--weights",
        trained / "STNET_final.pdparams",
        "--save_dir",
        tmp_path / "file" / "sub",
    )


@pytest.mark.skipif(paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0, reason="there is a GPU")
def test_use_gpu_without_one_says_so(clip_set, trained, capsys):
    failing(
        "train",
        "use_gpu is True, but (.* built for the CPU|no GPU is visible).*set use_gpu to False",
        capsys,
        "--config",
        clip_set / "tiny.yaml",
        "--use_gpu=True",
    )


def test_debug_shows_the_traceback(capsys):
    assert run(train, "--config=none.yaml", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
