"""inference_model.py and tools.run_deployed."""

import json
import os
import shutil
import signal
import sys

import numpy as np
import pytest
import yaml
from entries import eval_entry, inference_model, predict, run
from hostile_yaml import HOSTILE
from reports import shown

from backends import deploy, deployed
from backends.engines import ENGINES, exporter
from backends.export import program_files
from core.errors import UserError
from core.schema import SCHEMA
from engine.predictor import Predictor
from models import get_model
from models.stnet import STNET
from tools import run_deployed


def export(clip_set, trained, folder, *flags):
    return run(
        inference_model,
        "--model_name=STNET",
        "--config",
        clip_set / "tiny.yaml",
        "--use_gpu=False",
        "--weights",
        trained / "STNET_final.pdparams",
        "--batch_size=1",
        "--save_dir",
        folder,
        *flags,
    )


@pytest.fixture(params=["paddle", "onnx"])
def file_format(request):
    if request.param == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("paddle2onnx")
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_server_needs_nothing_but_the_folder(clip_set, trained, tmp_path, capsys, file_format, dtype):
    folder = tmp_path / "für server"
    flags = ["--uint8"] if dtype == "uint8" else []
    assert export(clip_set, trained, folder, f"--format={file_format}", *flags) == 0
    files = {"paddle": ["STNET.pdiparams", "STNET.pdmodel"], "onnx": ["STNET.onnx"]}[file_format]
    if file_format == "onnx" or program_files(f"{folder}/STNET")[0].endswith("pdmodel"):
        assert sorted(path.name for path in folder.iterdir()) == sorted([*files, "deploy.yaml"])
    video = next(clip_set.glob("*.mp4"))
    expected = predicted(clip_set, trained, tmp_path, video)
    capsys.readouterr()
    assert run_deployed.main([str(folder), str(video), "--topk=4"]) == 0
    assert shown(capsys.readouterr().out) == {str(video): pytest.approx(expected, abs=1e-5)}
    about = yaml.safe_load((folder / "deploy.yaml").read_text(encoding="utf-8"))
    assert about["input"]["dtype"] == dtype
    assert ("the model itself computes (value / 255 - mean) / std" in about["transform"]["meaning"]) == bool(flags)
    (result,) = Predictor(folder, device="cpu").predict(video)
    assert dict(zip(result.label_names, result.scores)) == pytest.approx(
        {label: expected[label] for label in result.label_names}, abs=1e-5
    )


def predicted(clip_set, trained, folder, video):
    """Label -> probability, as predict gives them."""
    flags = ["--config", clip_set / "tiny.yaml", "--use_gpu=False", "--engine=paddle", "--infer_topk=4"]
    weights = ["--weights", trained / "STNET_final.pdparams"]
    assert run(predict, *flags, *weights, "--video_path", video, "--save_dir", folder) == 0
    rows = json.loads((folder / "predict_results.json").read_text())["results"][0]["predictions"]
    return {row["label"]: row["probability"] for row in rows}


def test_the_exported_model_takes_any_number_of_clips_and_segments(clip_set, trained, tmp_path, file_format):
    assert export(clip_set, trained, tmp_path, f"--format={file_format}") == 0
    about = yaml.safe_load((tmp_path / "deploy.yaml").read_text(encoding="utf-8"))
    assert about["schema"] == SCHEMA
    assert about["input"]["shape"] == ["batch", "seg_num", 6, 32, 32]
    assert about["labels"] == json.loads((clip_set / "labels.json").read_text())
    assert about["transform"]["mean"] == [0.485, 0.456, 0.406]
    assert "Pillow" in about["transform"]["antialiased"]
    assert (about["input"]["dtype"], about["output"]["kind"]) == ("float32", "probabilities")
    classify = run_deployed.load(str(tmp_path), about)
    clips = np.random.RandomState(0).standard_normal((3, 5, 6, 32, 32)).astype("float32")
    together = classify(clips)
    assert together.shape == (3, 4)
    assert together.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert np.abs(together[1:2] - classify(clips[1:2])).max() < 1e-5
    assert np.abs(together - classify(clips[:, :2])).max() > 1e-6


def test_the_export_of_a_network_for_a_number_of_segments_takes_that_number(clip_set, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(STNET, "any_seg_num", False)
    assert export(clip_set, trained, tmp_path) == 0
    about = yaml.safe_load((tmp_path / "deploy.yaml").read_text(encoding="utf-8"))
    assert about["input"]["shape"] == ["batch", 2, 6, 32, 32]
    assert about["input"]["meaning"].endswith("batch may be any number")
    assert run_deployed.load(str(tmp_path), about)(np.zeros((3, 2, 6, 32, 32), "float32")).shape == (3, 4)


def test_an_unknown_format_is_refused_with_the_known():
    with pytest.raises(UserError, match="unknown format 'trt'; known: onnx, paddle, paddlex"):
        exporter("trt")


def test_a_wrong_export_is_not_put_in_place(clip_set, trained, tmp_path, monkeypatch, capsys):
    assert export(clip_set, trained, tmp_path / "out") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(deploy, "largest_deviation", lambda *_: 0.5)
    assert export(clip_set, trained, tmp_path / "out", "-o", "MODEL.image_mean=[0.485, 0.456, 0.406]") == 1
    assert "deviates by 0.5 from the network: nothing was written" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_export_goes_into_a_relative_folder_and_again_into_the_same(clip_set, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert export(clip_set, trained, "inference_model") == 0
        assert (tmp_path / "inference_model" / "deploy.yaml").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["inference_model"]


def put_and_die(made, folder, call):
    """Put an export in place in a process that kills itself before its `call`-th change of a name, or of none."""
    child = os.fork()
    if child == 0:
        left = [call]

        def deadly(change):
            def changed(*args, **options):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **options)

            return changed

        for name in ("replace", "rename", "link", "mkdir", "rmdir", "unlink", "fsync"):
            setattr(os, name, deadly(getattr(os, name)))
        deploy.exchange = deadly(deploy.exchange)
        deploy.put_in_place(str(made), str(folder), NAMES)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


NAMES = ["a.pdmodel", "a.pdiparams", "deploy.yaml"]


def write_export(folder, text):
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(text)


def test_a_kill_at_any_moment_leaves_the_old_export_or_the_new_one(tmp_path):
    seen = []
    for call in range(1, 100):
        folder = tmp_path / str(call) / "out"
        write_export(folder, "old")
        (folder / "sub").mkdir()
        (folder / "sub" / "mine").write_text("mine")
        made = folder / f".exporting-{2**22 + 1}-x"  # of a process that cannot be
        write_export(made, "new")
        killed = put_and_die(made, folder, call)
        (found,) = {(folder / name).read_text() for name in NAMES}
        assert (folder / "sub" / "mine").read_text() == "mine"
        seen.append(found)
        if not killed:
            break
        deploy._remove_leftovers(str(folder))
        assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, "sub"])
        assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert call > 10
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"old", "new"}


def test_what_cannot_be_replaced_as_a_whole_is_left_as_it_was(tmp_path, monkeypatch):
    write_export(tmp_path / "out", "old")
    write_export(tmp_path / "out" / ".exporting-x", "new")
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(UserError, match="cannot be replaced as a whole .it is the working directory.: it is as it was"):
        deploy.put_in_place(str(tmp_path / "out" / ".exporting-x"), str(tmp_path / "out"), NAMES)
    assert {(tmp_path / "out" / name).read_text() for name in NAMES} == {"old"}


def test_a_model_cut_short_by_a_full_disk_is_one_line(clip_set, trained, tmp_path, monkeypatch, capsys):
    engine = ENGINES.get("inference")
    write = engine.write

    def cut_short(self, layer, prefix, shape):
        write(self, layer, prefix, shape)
        with open(f"{prefix}.pdiparams", "rb+") as file:
            file.truncate(1000)

    monkeypatch.setattr(engine, "write", cut_short)
    assert export(clip_set, trained, tmp_path / "out") == 1
    assert "error: the exported model cannot be loaded, perhaps the disk is full" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_onnx_without_its_packages_is_one_line(clip_set, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    assert export(clip_set, trained, tmp_path / "out", "--format=onnx") == 1
    assert "pip install 'paddle2onnx>=2.1' onnxruntime" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_answers_nan_is_not_put_in_place(clip_set, trained, tmp_path, monkeypatch, capsys):
    engine = ENGINES.get("inference")
    load = engine.load

    def broken(self, prefix):
        run, *others = load(self, prefix)
        return (lambda clips: run(clips) * np.float32("nan"), *others)

    monkeypatch.setattr(engine, "load", broken)
    assert export(clip_set, trained, tmp_path) == 1
    assert "deviates by nan from the network: nothing was written" in capsys.readouterr().err


def test_an_export_of_another_format_leaves_no_model_of_the_one_before(tmp_path):
    folder = tmp_path / "inference_model"
    folder.mkdir()
    for name in ("STNET.pdmodel", "STNET.pdiparams", "mine.txt"):
        (folder / name).write_text("old")
    (folder / deploy.FILE).write_text("model: {files: [STNET.pdmodel, STNET.pdiparams]}")
    made = folder / ".made"
    made.mkdir()
    for name in ("STNET.onnx", deploy.FILE):
        (made / name).write_text("new")
    deploy.put_in_place(str(made), str(folder), ["STNET.onnx", deploy.FILE])
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["STNET.onnx", deploy.FILE, "mine.txt"]


@pytest.mark.parametrize(
    "files",
    ["[STNET.onnx]", "['*']", "['*.txt', '?otes']", "[v1/STNET.onnx, ../beside]", "[1, null, {a: b}]", "x", "1"],
)
def test_an_export_replaces_the_files_of_the_one_before_and_no_others(tmp_path, files):
    folder = tmp_path / "out"
    (folder / "v1").mkdir(parents=True)
    others = ["notes", "mine.txt", "1", "v1/STNET.onnx", "v1/deploy.yaml", "v1/.exporting-mine", "../beside"]
    for name in others:
        (folder / name).write_text("mine")
    (folder / deploy.FILE).write_text(f"model: {{files: {files}}}")
    made = folder / f".exporting-{2**22 + 1}-x"
    made.mkdir()
    for name in ("STNET.onnx", deploy.FILE):
        (made / name).write_text("new")
    deploy.put_in_place(str(made), str(folder), ["STNET.onnx", deploy.FILE])
    assert {name: (folder / name).read_text() for name in others} == dict.fromkeys(others, "mine")
    assert sorted(path.name for path in folder.iterdir()) == [
        "1",
        "STNET.onnx",
        "deploy.yaml",
        "mine.txt",
        "notes",
        "v1",
    ]


@pytest.fixture(scope="module")
def onnx_export(clip_set, trained, tmp_path_factory):
    pytest.importorskip("paddle2onnx")
    folder = tmp_path_factory.mktemp("onnx")
    assert export(clip_set, trained, folder, "--format=onnx") == 0
    return folder


SHAPE = ["batch", "seg_num", 6, 24, 24]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input": {"dtype": "uint8"}}, "the model does not take what .*deploy.yaml says: .*INVALID_ARGUMENT"),
        ({"input": {"shape": SHAPE}, "transform": {"target_size": 24}}, "the model does not take what "),
        ({"transform": {"target_size": 24}}, "deploy.yaml is damaged .*does not fit target_size 24 and seglen 2"),
        ({"transform": {"short_size": 10**9}}, "deploy.yaml is damaged .*a whole number from 1 to 4096"),
        ({"sampling": {"seg_num": 16384}}, "deploy.yaml is damaged .*a clip of 16384 segments of 2 frames, 32 x 32"),
        ({"model": {"name": "x" * 200}}, "deploy.yaml is damaged .*the name of a model, found 'x{19}\\)"),
        ({"output": {"topk": [[1] * 99] * 99}}, r"deploy.yaml is damaged .*from 1 to 65536, found [^)]{20}\)"),
        ({"transform": {"mean": [0, 0, 10**400]}}, "deploy.yaml is damaged"),
        ({"sampling": {"format": None}}, "deploy.yaml is damaged .*expected the name of a format, found None"),
        ({"model": {"files": ["../STNET.onnx"]}}, "deploy.yaml is damaged .*the name of a file beside it"),
        ({"model": {"files": ["deploy.yaml"]}}, "cannot be loaded"),
    ],
)
def test_a_description_that_is_not_the_models_is_one_line(onnx_export, clip_set, tmp_path, changes, reason):
    shutil.copytree(onnx_export, tmp_path / "model")
    facts = yaml.safe_load((tmp_path / "model" / "deploy.yaml").read_text(encoding="utf-8"))
    for section, values in changes.items():
        facts[section].update(values)
    (tmp_path / "model" / "deploy.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        list(Predictor(tmp_path / "model", device="cpu").predict(next(clip_set.glob("*.mp4"))))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description_is_one_line(onnx_export, tmp_path, name):
    text, _ = HOSTILE[name]
    folder = shutil.copytree(onnx_export, tmp_path / "model")
    text = text.encode() if isinstance(text, str) else text
    for content in (text, (folder / deploy.FILE).read_bytes() + b"\nmore: " + text):
        (folder / deploy.FILE).write_bytes(content)
        with pytest.raises(UserError, match="deploy.yaml is damaged; inference writes it anew$"):
            deployed.load_deployed(folder)
        assert deploy._model_files(str(folder)) == []


@pytest.mark.parametrize(
    "labels", [[["a"], "b", "c", "d"], ["a" * 5000, "b", "c", "d"], {0: "a", 1: "b", 2: "c", 3: "d"}, ["a", "b"]]
)
def test_labels_that_are_no_names_are_refused(onnx_export, tmp_path, labels):
    folder = shutil.copytree(onnx_export, tmp_path / "model")
    facts = yaml.safe_load((folder / deploy.FILE).read_text(encoding="utf-8"))
    (folder / deploy.FILE).write_text(yaml.safe_dump({**facts, "labels": labels}), encoding="utf-8")
    with pytest.raises(UserError, match="deploy.yaml is damaged"):
        deployed.load_deployed(folder)


def test_texts_of_an_export_are_escaped_and_cut(onnx_export, clip_set, tmp_path, capfd):
    folder = shutil.copytree(onnx_export, tmp_path / "model")
    facts = yaml.safe_load((folder / deploy.FILE).read_text(encoding="utf-8"))
    labels = ["\x1b[2J\r\n", "b" * 4000, "c", 4]
    facts["precision"] = {"precision": "\x1b[31m" + "x" * 4000}
    (folder / deploy.FILE).write_text(yaml.safe_dump({**facts, "labels": labels}), encoding="utf-8")
    video = next(clip_set.glob("*.mp4"))
    (result,) = Predictor(folder, device="cpu").predict(video)
    rows = [line.rpartition(",")[0] for line in str(result).splitlines()[1:]]
    assert sorted(rows) == sorted(["    \\x1b[2J\\r\\n", f"    {'b' * 200}...", "    c", "    4"])
    assert sorted(result.label_names) == sorted(map(str, labels))  # as they are
    with pytest.raises(UserError) as error:
        Predictor(folder, device="cpu", precision="int8")
    assert len(str(error.value)) < 300


def test_eval_takes_the_sizes_of_an_export_and_says_so(onnx_export, clip_set, tmp_path, caplog):
    flags = ["--config", clip_set / "tiny.yaml", "--use_gpu=False", "--weights", onnx_export]
    own = ["-o", "TEST.seg_num=2"]
    others = ["TEST.short_size=48", "TEST.target_size=40", "TEST.seg_num=3", "MODEL.seglen=1", "MODEL.num_classes=7"]
    assert run(eval_entry, *flags, *own, "--save_dir", tmp_path / "own") == 0
    assert "as the export has it" not in caplog.text
    words = [word for override in others for word in ("-o", override)]
    assert run(eval_entry, *flags, *words, "--save_dir", tmp_path / "others") == 0
    said = [record.getMessage() for record in caplog.records if "as the export has it" in record.getMessage()]
    assert said == [
        "MODEL.num_classes is 4, as the export has it, not 7",
        "MODEL.seglen is 2, as the export has it, not 1",
        "TEST.short_size is 32, as the export has it, not 48",
        "TEST.target_size is 32, as the export has it, not 40",
        "TEST.seg_num is 2, as the export has it, not 3",
    ]
    results = [json.loads((tmp_path / name / "eval_results.json").read_text()) for name in ("own", "others")]
    assert results[0]["loss"] == results[1]["loss"]
    assert results[1]["config"]["TEST"]["short_size"] == 32


@pytest.mark.parametrize("answer", [[0.5, 0.6], [-0.1, 1.1], [np.nan, 1], [np.inf, 0], [3.5, -2.5]])
def test_answers_of_an_export_that_are_no_probabilities_are_refused(answer):
    run = deployed._doubted(lambda clips: np.float32([answer]), "deploy.yaml", logits=False)
    with pytest.raises(UserError, match="the model's answers are no probabilities, as deploy.yaml says"):
        run(np.zeros(1))


def test_a_folder_whose_name_is_not_utf8_is_refused(tiny_config, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9")
    model = get_model("STNET", tiny_config, "infer")
    with pytest.raises(UserError, match="whose path is not UTF-8"):
        deploy.deploy(model, tiny_config.section("infer"), list("abcd"), folder, "paddle")
    assert not os.path.exists(folder)
