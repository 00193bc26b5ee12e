"""tools.run_deployed, copied out into an environment of its own, gives predict's numbers."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import yaml
from conftest import tiny_settings, write_config
from entries import inference_model, predict, run
from hostile_yaml import HOSTILE
from installations import environment_of
from reports import shown

from stnet.tools import run_deployed
from stnet.utils.files import sha256_of

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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.ffconcat", "ffconcat version 1.0\nfile below/three_frames.mp4\n"),
        ("list.mp4", "ffconcat version 1.0\nfile below/three_frames.mp4\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n../below/three_frames.mp4\n#EXT-X-ENDLIST\n"),
    ],
)
def test_what_a_playlist_names_is_not_opened(videos, tmp_path, name, text):
    for folder in ("lists/below", "below"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(videos / "three_frames.mp4", tmp_path / folder)
    (tmp_path / "lists" / name).write_text(text)
    with pytest.raises(run_deployed.Unusable, match="its format is none of a video file"):
        run_deployed.read_frames(str(tmp_path / "lists" / name), lambda count: [0])


def test_it_opens_the_formats_that_the_reader_opens():
    from stnet.reader.containers import DEMUXERS

    assert run_deployed.DEMUXERS == DEMUXERS


def write_h264(path, lost=()):
    """An MP4 file of 12 frames, every fourth a key frame; the `lost` ones hold the second frame, after none."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"g": "4", "bf": "0", "sc_threshold": "0"})
        stream.width = stream.height = 64
        frames = [av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * i, np.uint8), "rgb24") for i in range(12)]
        packets = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
        for number, packet in enumerate(packets):
            container.mux(filled(packet, bytes(packets[1])) if number in lost else packet)


def filled(packet, content):
    """A packet that holds something else."""
    filler = av.Packet(content)
    filler.stream, filler.time_base, filler.pts, filler.dts = packet.stream, packet.time_base, packet.pts, packet.dts
    return filler


def test_frames_that_a_header_promises_and_no_one_decodes_are_counted(tmp_path, capfd):
    for name, lost in [("whole.mp4", ()), ("headless.mp4", (0,))]:
        write_h264(tmp_path / name, lost)
        run_deployed.read_frames(str(tmp_path / name), lambda count: [0])
    said = [line for line in capfd.readouterr().err.splitlines() if "promises" in line]
    assert said == [f"{tmp_path / 'headless.mp4'}: its header promises 12 frames, 8 were decoded"]


def test_a_full_standard_output_is_one_line(onnx_folder, videos):
    command = [sys.executable, run_deployed.__file__, str(onnx_folder), str(videos / "three_frames.mp4")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: cannot write to standard output: No space left on device\n")


def changed(folder, target, **changes):
    """A copy of an export with other values in deploy.yaml; `section__key`: of a section, None: left out."""
    shutil.copytree(folder, target)
    facts = yaml.safe_load((target / "deploy.yaml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = facts[sections[0]] if sections else facts
        if value is None:
            del place[key]
        else:
            place[key] = value
    (target / "deploy.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    return target


def test_names_that_the_terminal_cannot_show_are_escaped(onnx_folder, videos, tmp_path):
    folder = changed(onnx_folder, tmp_path / "model", labels=["跑步", "跳", "走", "é"])
    video = os.fsencode(tmp_path) + b"/\xff.mp4"
    shutil.copy(videos / "three_frames.mp4", video)
    command = [sys.executable, run_deployed.__file__, folder, video, "/none\u8dd1", "--topk=4"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (3, "/none\\u8dd1: no such file\n")
    ((name, rows),) = shown(done.stdout).items()
    assert name == f"{tmp_path}/\\udcff.mp4"
    assert set(rows) == {r"\u8dd1\u6b65", r"\u8df3", r"\u8d70", r"\xe9"}


SIDES = ("transform__short_size", "transform__target_size")


@pytest.mark.parametrize(
    "changes",
    [
        *({section: None} for section in ("input", "output", "sampling", "transform", "model", "labels")),
        *({"input__dtype": dtype} for dtype in ("int8", None, [])),
        *({"output__kind": kind} for kind in ("foo", 1)),
        *({"sampling__seg_num": size} for size in (0, -1, 2.0, "2", True, 65537, 10**30)),
        *({"transform__target_size": size} for size in (16, 0, None)),
        *(
            {"transform__mean": mean}
            for mean in ([0.1], "abc", ["a", "b", "c"], 1, [1, 2, float("nan")], [1, 2, 10**400])
        ),
        *({"transform__std": std} for std in ([0, 0, 0], [1, 1, -1])),
        *({"sampling__format": value} for value in (1, None)),
        *({"labels": labels} for labels in (["a"], "abcd", {0: "a", 1: "b", 2: "c", 3: "d"})),
        *({"model__files": names} for names in ([], "STNET.onnx", [1], ["../STNET.onnx"], ["/x.onnx"], [".."])),
        *({"input__shape": shape} for shape in ([1], 1, ["batch", "seg_num", 5, 32, 32], ["b", "s", 6, 32, 33])),
        {"sampling__seglen": 3},
        {"output__topk": "many"},
        {"sampling__seg_num": 16384},
        {"sampling__seg_num": 65536, "sampling__seglen": 65536, "input__shape": ["b", "s", 3 * 65536, 32, 32]},
        {"transform__short_size": 65536},
        {
            "sampling__seg_num": 3,
            "transform__target_size": 4096,
            "transform__short_size": 4096,
            "input__shape": ["b", "s", 6, 4096, 4096],
        },
        {"labels": [["a"] * 1000, "b", "c", "d"]},
        {"labels": ["a" * 5000, "b", "c", "d"]},
    ],
)
def test_a_tampered_description_is_one_line(onnx_folder, tmp_path, capsys, changes):
    folder = changed(onnx_folder, tmp_path / "model", **changes)
    assert run_deployed.main([str(folder), "a.mp4"]) == 1
    assert capsys.readouterr().err == f"error: {folder}/deploy.yaml is damaged; inference writes it anew\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description_is_one_line(onnx_folder, tmp_path, capsys, name):
    text, _ = HOSTILE[name]
    folder = shutil.copytree(onnx_folder, tmp_path / "model")
    text = text.encode() if isinstance(text, str) else text
    for content in (text, (folder / "deploy.yaml").read_bytes() + b"\nmore: " + text):
        (folder / "deploy.yaml").write_bytes(content)
        assert run_deployed.main([str(folder), "a.mp4"]) == 1
        assert capsys.readouterr().err == f"error: {folder}/deploy.yaml is damaged; inference writes it anew\n"


def test_aliases_of_aliases_are_refused_wherever_they_stand(onnx_folder, tmp_path, capsys):
    folder = shutil.copytree(onnx_folder, tmp_path / "model")
    whole = (folder / "deploy.yaml").read_text(encoding="utf-8")
    for line in ("schema: 1\n", "dtype: float32\n", "seg_num: 2\n", "kind: probabilities\n", "- STNET.onnx\n"):
        assert line in whole
        key = line.partition(" ")[0]
        text = f"{HOSTILE['aliases of aliases'][0]}\n{whole.replace(line, f'{key} *a9{chr(10)}')}"
        (folder / "deploy.yaml").write_text(text, encoding="utf-8")
        assert run_deployed.main([str(folder), "a.mp4"]) == 1
        assert capsys.readouterr().err == f"error: {folder}/deploy.yaml is damaged; inference writes it anew\n"


ESCAPES = "\x1b[2J\x1b[31mgone\x07\r\n"


def test_texts_of_a_description_are_escaped_and_cut(onnx_folder, videos, tmp_path, capfd):
    video = str(videos / "three_frames.mp4")
    shown_as = ESCAPES.encode("unicode_escape").decode()
    folder = changed(onnx_folder, tmp_path / "labels", labels=[ESCAPES, "b" * 4000, "c", 4])
    assert run_deployed.main([str(folder), video, "--topk=4"]) == 0
    said = capfd.readouterr()
    assert sorted(line[14:] for line in said.out.splitlines()[1:]) == sorted([shown_as, "b" * 200 + "...", "c", "4"])
    for number, changes in enumerate(
        [{"sampling__format": ESCAPES}, {"model__files": ["\x1b[31mgone\x07.onnx"]}, {"input__name": ESCAPES}]
    ):
        folder = changed(onnx_folder, tmp_path / str(number), **changes)
        assert run_deployed.main([str(folder), video]) == 1
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err[:-1].isprintable()
        assert "gone" in said.err


@pytest.mark.parametrize("clips", [10**400, float("nan"), "many", None])
def test_a_hostile_record_of_precision_proves_nothing(onnx_folder, videos, tmp_path, capsys, clips):
    record = {"sha256": sha256_of(onnx_folder / "STNET.onnx"), "processor": {"model": [ESCAPES], "instructions": "x"}}
    figures = {"clips": clips, "equal": 264, "largest": 0.0}
    folder = changed(onnx_folder, tmp_path / "model", precision={**record, "figures": figures})
    assert run_deployed.main([str(folder), str(videos / "three_frames.mp4")]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
    assert "prove" in said


SIZE = {"transform__target_size": 24, "input__shape": ["batch", "seg_num", 6, 24, 24]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input__dtype": "uint8"}, "the model does not take what deploy.yaml says: "),
        (SIZE, "the model does not take what deploy.yaml says: "),
        ({"input__name": "x"}, "the model does not take what deploy.yaml says: "),
        ({"labels": ["a"], "output__shape": ["batch", 1]}, "the model answers with [1, 4], for 1 labels"),
    ],
)
def test_a_description_of_another_model_is_one_line(onnx_folder, videos, tmp_path, capsys, changes, reason):
    folder = changed(onnx_folder, tmp_path / "model", **changes)
    assert run_deployed.main([str(folder), str(videos / "three_frames.mp4"), str(videos / "three_frames.mp4")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {reason}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("answer", [[0.5, 0.6], [-0.1, 1.1], [np.nan, 1], [np.inf, 0], [3.5, -2.5]])
def test_answers_that_are_no_probabilities_are_refused(tmp_path, monkeypatch, answer):
    monkeypatch.setattr(run_deployed, "load_onnx", lambda *_: lambda clips: np.float32([answer]))
    facts = {"model": {"files": ["a.onnx"]}, "output": {"kind": "probabilities"}, "labels": ["a", "b"]}
    with pytest.raises(run_deployed.Unusable, match="the model's answers are no probabilities"):
        run_deployed.load(str(tmp_path), facts)(np.zeros(1))


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
    from stnet.reader.sampling import sample_frames

    for seg_num, seglen in ((25, 5), (3, 1), (1, 16)):
        for count in range(1, 300):
            assert run_deployed.sample(count, seg_num, seglen) == sum(sample_frames(count, seg_num, seglen), [])


def test_frames_scale_as_in_the_reader_whichever_side_shrinks_and_whichever_grows():
    from stnet.reader.transforms import ClipBuilder

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
        "__future__", "argparse", "errno", "hashlib", "io", "os", "re", "signal", "sys", "collections", "typing", "av",
        "warnings", "numpy", "yaml", "PIL", "onnxruntime", "paddle",
    }  # fmt: skip
