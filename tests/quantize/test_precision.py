"""stnet.quantize.run and what it stands on: a toy of 18 layers in low precision."""

import importlib.util
import json
import shutil
import sys
import tempfile
import types

import numpy as np
import paddle
import pytest
import yaml
from entries import eval_entry, inference_model, predict, run

from stnet import runtime
from stnet.backends.cache import _RECORD as DIGESTS
from stnet.inference.predictor import Predictor
from stnet.quantize import formats as precisions
from stnet.quantize.calibrate import Quantizer, Reading, chosen
from stnet.quantize.report import RECORD, Precision, this_processor
from stnet.reader.sources import sources
from stnet.tools import run_deployed
from stnet.utils.errors import UserError
from stnet.utils.files import sha256_of

pytest.importorskip("onnxruntime")
pytest.importorskip("paddle2onnx")
pytest.importorskip("ml_dtypes")
ANOTHER = "model name : Another\nflags : avx2\n"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A cache of this file's own."""
    folder = tmp_path_factory.mktemp("precision")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STNET_WEIGHTS_HOME", str(folder))
        yield folder / "precision"


def listed(clip_set, count):
    """A list of as many clips, copies of the set's own; half of it stands there twice, which counts once."""
    folder = clip_set.parent / "proofs"  # not in the set's own folder, which others count
    folder.mkdir(exist_ok=True)
    path = folder / f"proof{count}.list"
    for i in range(count):
        shutil.copy(clip_set / f"train {i % 10}.mp4", folder / f"{i}.mp4")
    lines = [f"{i}.mp4 {i % 4}\n" for i in range(count)]
    path.write_text("".join(lines + lines[: count // 2]), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def asked(clip_set, trained):
    """Predictor(...) of the trained toy as eval makes it."""

    def ask(name, calibrate=0, weights="STNET_final.pdparams", **others):
        precision = Precision(name, listed(clip_set, calibrate) if calibrate else "", **others)
        config = clip_set / "tiny.yaml"
        return Predictor(trained / weights, config, device="cpu", mode="test", precision=precision)

    return ask


@pytest.fixture(scope="module")
def int8(asked):
    """The toy in int8, proven with 200 clips."""
    predictor = asked("int8", 216)
    assert predictor.report.figures.clips == 200
    return predictor


def clips(predictor, count=4):
    section = predictor.config.section("infer")
    shape = (count, section.seg_num, 3 * section.seglen, section.target_size, section.target_size)
    return np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)


def compute(predictor):
    return predictor.engine(clips(predictor))


def probabilities(predictor, clip_set):
    """Of all classes for the clips of a list, as they were calibrated with: what lies beyond is cut off in int8."""
    rows = predictor.predict(clip_set / "train.list")
    return np.array([[score for _, score in sorted(zip(row.class_ids, row.scores))] for row in rows])


@pytest.fixture(scope="module")
def expected(asked, clip_set):
    """Probabilities in float32."""
    return probabilities(asked("fp32"), clip_set)


def assert_near(predictor, expected, clip_set, bound):
    found = probabilities(predictor, clip_set)
    assert found.shape == expected.shape == (10, 4)
    assert 0 < np.abs(found - expected).max() <= bound


def test_int8_is_near_float32_and_its_proof_is_kept(int8, asked, expected, clip_set):
    assert int8.engine.name == "ONNX Runtime in int8"
    assert int8.report.figures.equal >= 198
    assert int8.report.calibration["clips"] == 16
    assert_near(int8, expected, clip_set, 0.1)
    assert asked("int8").report == int8.report


def test_bf16_is_near_float32_where_the_processor_computes_in_it(asked, expected, clip_set):
    pytest.importorskip("openvino")
    if not this_processor().bf16:
        with pytest.raises(UserError, match="the processor has neither avx512_bf16 nor amx_bf16"):
            compute(asked("bf16", 216))
        pytest.skip("this processor does not compute in bf16")
    bf16 = asked("bf16", 216)
    assert_near(bf16, expected, clip_set, 0.02)
    assert bf16.engine.name == "OpenVINO in bf16"


def test_auto_is_float32_without_a_proof_and_int8_with_one(asked, int8, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "openvino", None)
    auto = asked("auto", weights="STNET_epoch0.pdparams")
    assert auto.report is None
    assert auto.engine.name == "ONNX Runtime"
    assert "precision auto takes fp32; precision int8 has no proof for these weights" in caplog.text
    assert (asked("auto").report is not None) == (int8.report.speed.ratio > 1)  # it never takes the slower


def test_float32_has_no_proof_and_clips_that_are_too_few_are_none(asked, caplog):
    assert asked("fp32").report is None
    with pytest.raises(UserError, match="precision int8 not proven: 24 clips are left to compare, at least 200 are"):
        compute(asked("int8", 40, weights="STNET_epoch0.pdparams"))
    assert "calibrating" not in caplog.text  # nothing was computed for it
    forced = asked("int8", 40, weights="STNET_epoch0.pdparams", unproven=True)
    assert forced.report.figures.clips == 24
    assert "at least 200 are needed; used all the same" in caplog.text


def edited(folder, change):
    """Change a record, and the digest that guards it, too."""
    path = folder / RECORD
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    digests = json.loads((folder / DIGESTS).read_text())
    digests["sha256"][RECORD] = sha256_of(path)
    (folder / DIGESTS).write_text(json.dumps(digests))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value["figures"].update(equal=300), "the one in .* is damaged"),
        (lambda value: value["figures"].update(equal=10, passed=True), "the one in .* is damaged"),
        (lambda value: value["figures"].update(equal=10), "precision int8 refused: fewer than 99.00%"),
        (lambda value: value["figures"].update(largest=0.62), "refused: a probability differs by more than 0.2"),
        (lambda value: value["processor"].update(model="Another"), "the one in .* is of another processor"),
        (lambda value: value.update(sha256="0" * 64), "the one in .* is damaged"),
        (lambda value: value.clear(), "the one in .* is damaged"),
    ],
)
def test_an_edited_record_is_judged_by_its_figures_or_not_believed(change, message, asked, int8, home, tmp_path):
    (folder,) = (path.parent for path in home.glob("*/int8.onnx") if sha256_of(path) == sha(int8))
    shutil.copytree(folder, tmp_path / "kept")
    try:
        edited(folder, change)
        with pytest.raises(UserError, match=message):
            compute(asked("int8"))
    finally:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)


def sha(predictor):
    return predictor.report.sha256


def test_a_file_that_was_changed_is_not_run(asked, int8, home, tmp_path):
    (path,) = (path for path in home.glob("*/int8.onnx") if sha256_of(path) == sha(int8))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match="precision int8 has no proof to believe: the one in .* is damaged"):
        compute(asked("int8"))
    path.write_bytes(content)


def test_a_half_file_with_digests_of_its_own_is_one_line_and_float32_for_auto(asked, int8, home, tmp_path, caplog):
    (folder,) = (path.parent for path in home.glob("*/int8.onnx") if sha256_of(path) == sha(int8))
    shutil.copytree(folder, tmp_path / "kept")
    try:
        path = folder / "int8.onnx"
        path.write_bytes(path.read_bytes()[:-1000])
        digests = json.loads((folder / DIGESTS).read_text())
        digests["sha256"][path.name] = sha256_of(path)
        (folder / DIGESTS).write_text(json.dumps(digests))
        edited(folder, lambda value: value.update(sha256=sha256_of(path)))
        with pytest.raises(UserError, match="precision int8: the file in .* cannot be loaded"):
            compute(asked("int8"))
        caplog.set_level("INFO")
        assert asked("auto").engine.name != "ONNX Runtime in int8"
        assert "precision int8: the file in" in caplog.text
    finally:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)


def test_a_proof_that_is_refused_does_not_replace_one_that_is_kept(asked, int8):
    with pytest.raises(UserError, match="24 clips are left to compare"):
        compute(asked("int8", 40))
    assert asked("int8").report == int8.report
    assert asked("int8", 40, unproven=True).report.figures.clips == 24  # the one that was asked for
    with pytest.raises(UserError, match=r"24 clips were compared.*; the proof that was kept stays"):
        compute(asked("int8", 40))
    assert asked("int8").report == int8.report


@pytest.mark.slow
def test_a_stricter_bound_on_the_same_clips_searches_once_and_replaces_nothing(asked, int8, caplog):
    caplog.set_level("INFO")
    with pytest.raises(UserError, match="refused: a probability differs by more than 1e-06"):
        compute(asked("int8", 216, difference=1e-6))
    assert caplog.text.count("precision int8, but for") == 3
    caplog.clear()
    with pytest.raises(UserError, match="refused: a probability differs by more than 1e-06"):
        compute(asked("int8", 216, difference=1e-6))
    assert "but for" not in caplog.text
    assert asked("int8", 216).report == asked("int8").report == int8.report


def test_the_speed_is_that_of_the_batches_that_will_be_computed(int8):
    assert (int8.report.speed.batch, int8.report.speed.fp32) == (int8.engine.at_once, "ONNX Runtime")


def test_a_kept_proof_is_used_without_what_it_was_made_by(asked, int8, monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    assert asked("int8").report == int8.report


def test_a_broken_runtime_is_one_line(asked, int8, monkeypatch):
    broken = types.ModuleType("onnxruntime")
    broken.__spec__ = importlib.util.find_spec("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", broken)
    with pytest.raises(UserError, match="precision int8 is not available: onnxruntime does not work"):
        compute(asked("int8"))


def test_what_another_process_has_chosen_is_computed(asked, int8):
    first, second = asked("auto"), asked("auto")
    assert (second.report is None) == (int8.report.speed.ratio <= 1)  # computed by now
    first.engines.set_precision("fp32")
    second.engines.set_precision("int8")
    assert first.report is None
    assert second.report == int8.report


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        (None, "precision None: expected one of fp32"),
        (8, "precision 8: expected one of fp32"),
        ([], r"precision \[\]: expected one of fp32"),
        (Precision("int8", agreement="x"), "agreement 'x': expected a number above 0, at most 1"),
        (Precision("int8", difference=0), "difference 0: expected a number above 0, at most 1"),
        (Precision("int8", calibrate=3), "calibrate 3: expected the path of a list or folder, or a glob"),
    ],
)
def test_a_precision_of_another_type_is_one_line(precision, message, trained, clip_set):
    with pytest.raises(UserError, match=message):
        Predictor(trained / "STNET_final.pdparams", clip_set / "tiny.yaml", device="cpu", precision=precision)


def test_a_spare_clip_is_read_for_each_that_cannot_be(clip_set, tiny_config, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    good = [clip_set / f"train {i}.mp4" for i in range(10)]
    videos = sources([*map(str, good[:3]), str(tmp_path / "bad.mp4"), str(good[3])], "mp4", "")
    spare = sources([str(tmp_path / "bad.mp4"), *map(str, good[4:])], "mp4", "")
    reading = Reading(tiny_config, videos, left := list(spare))
    read = [video for part, _ in reading.batches("reading") for video in part]
    assert read == [*videos[:3], videos[4], spare[1]]
    assert left == spare[2:]


def test_a_clip_with_other_content_of_the_same_size_is_another(clip_set, tiny_config, tmp_path):
    for i in range(4):
        shutil.copy(clip_set / f"train {i}.mp4", tmp_path)
    before = chosen(str(tmp_path), tiny_config)
    assert chosen(str(tmp_path), tiny_config) == before
    path = tmp_path / "train 2.mp4"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert chosen(str(tmp_path), tiny_config).digest != before.digest


def test_a_proof_from_another_processor_is_not_believed(asked, int8, monkeypatch):
    monkeypatch.setattr(runtime, "processor", lambda: ANOTHER)
    with pytest.raises(UserError, match="precision int8 has no proof"):
        compute(asked("int8"))


def test_an_export_carries_the_proof_and_another_processor_says_that_it_does_not_count(
    clip_set, trained, int8, tmp_path, monkeypatch, caplog, capsys
):
    flags = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "-o", "INFER.seg_num=3"]
    assert run(inference_model, *flags, "--format=onnx", "--precision=int8", "--save_dir", tmp_path / "out") == 0
    facts = yaml.safe_load((tmp_path / "out" / "deploy.yaml").read_text())
    assert facts["precision"] == int8.report.to_dict()
    assert sha256_of(tmp_path / "out" / "STNET.onnx") == sha(int8)
    caplog.clear()
    deployed = Predictor(tmp_path / "out", device="cpu")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert np.allclose(deployed.engine(clips(int8)), compute(int8), atol=1e-5)
    again = [clip_set / "train 0.mp4", "--weights", tmp_path / "out", "--save_dir", tmp_path]
    assert run(predict, *again, "--precision=int8") == 0
    assert run(predict, *again, "--precision=bf16") == 1
    assert f"{tmp_path / 'out'} was written in int8: precision bf16 is not available" in capsys.readouterr().err
    assert run_deployed.main([str(tmp_path / "out"), str(clip_set / "train 0.mp4")]) == 0
    assert "computes in" not in capsys.readouterr().err
    monkeypatch.setattr(runtime, "processor", lambda: ANOTHER)
    monkeypatch.setattr(run_deployed, "first_of_cpuinfo", lambda: ANOTHER)
    Predictor(tmp_path / "out", device="cpu")
    assert "computes in int8: it was proven on another processor" in caplog.text
    assert run_deployed.main([str(tmp_path / "out"), str(clip_set / "train 0.mp4")]) == 0
    assert "computes in lower precision than float32: it was proven on another processor" in capsys.readouterr().err


def test_eval_writes_the_record_and_a_table_does_not_mix_precisions(clip_set, trained, int8, tmp_path, capsys):
    flags = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--save_dir", tmp_path]
    assert run(eval_entry, *flags, "--precision=int8") == 0
    assert json.loads((tmp_path / "eval_results.json").read_text())["precision"] == int8.report.to_dict()
    table = [*flags, "-o", "INFER.seg_num=3", "--output", tmp_path / "rows.jsonl"]
    assert run(predict, *table, "--precision=int8") == 0
    capsys.readouterr()
    assert run(predict, *table, "--resume") == 1
    assert "was made with other precision" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "flags", "message"),
    [
        (predict, ["--precision=int4"], "precision 'int4': expected one of fp32, int8, bf16, auto"),
        (
            predict,
            ["--calibrate=x.list"],
            "--calibrate is without effect: in fp32 nothing is proven; set --precision to int8, bf16 or auto",
        ),
        (predict, ["--agreement=0.9"], "--agreement is without effect: in fp32 nothing is proven; set --precision"),
        (predict, ["--difference=0.1"], "--difference is without effect: in fp32 nothing is proven"),
        (eval_entry, ["--unproven"], "--unproven is without effect: in fp32 nothing is proven"),
        (predict, ["--precision=int8", "--explain"], "--explain computes in fp32: leave out --precision"),
        (
            eval_entry,
            ["--precision=int8", "--engine=paddle"],
            "precision int8 is computed by onnxruntime, not by paddle",
        ),
        (eval_entry, ["--precision=int8", "--agreement=2"], "agreement 2.0: expected a number above 0, at most 1"),
        (inference_model, ["--precision=int8"], "int8 is not written in the format paddle; set --format=onnx"),
        (inference_model, ["--precision=bf16"], "there is no file of it; export in fp32"),
    ],
)
def test_what_cannot_be_had_is_one_line(entry, flags, message, clip_set, trained, tmp_path, capsys):
    there = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--save_dir", tmp_path]
    assert run(entry, *there, *flags) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def scaled(source, target, blocks):
    """Weights of the same function, one channel of each block of which is 1e4 times as large."""
    weights = {name: np.array(value) for name, value in paddle.load(str(source)).items()}
    for block in blocks:
        weights[f"{block}.bn1.bias"][0] += 1
        for name in ("weight", "bias"):
            weights[f"{block}.bn1.{name}"][0] *= 1e4
        weights[f"{block}.conv2.weight"][:, 0] *= 1e-4
    paddle.save({name: paddle.to_tensor(value) for name, value in weights.items()}, str(target))


@pytest.mark.slow
def test_the_layers_beside_a_channel_that_is_too_large_are_found_and_left_in_float32(
    clip_set, trained, tmp_path, tiny_config, monkeypatch
):
    from stnet.backends.program import Scorer, write_onnx
    from stnet.weights.loading import load_model

    scaled(trained / "STNET_final.pdparams", tmp_path / "scaled.pdparams", ["layer2.0"])
    model = load_model(tiny_config, "test", str(tmp_path / "scaled.pdparams")).model
    settings = tiny_config.MODEL
    scorer = Scorer(model.network, settings.image_mean, settings.image_std, 2)
    write_onnx(scorer, f"{tmp_path}/fp32.onnx", [None, 3, 6, 32, 32])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))  # whoever is killed would leave files there
    quantizer = Quantizer(f"{tmp_path}/fp32.onnx", reduced=False)
    some = [np.random.RandomState(seed).randint(0, 256, (1, 3, 6, 32, 32)).astype(np.uint8) for seed in range(5)]
    quantizer.calibrate(iter(some))
    worst = quantizer.worst_first()[:3]
    distances = []
    for names in ([], worst):
        quantizer.write(f"{tmp_path}/int8.onnx", names)
        run_file = precisions.Int8().load(str(tmp_path), [])[0]
        exact = precisions.OnnxRuntime().load(f"{tmp_path}/fp32")[0]
        distances.append(max(np.abs(run_file(clip) - exact(clip)).max() for clip in some))
    assert distances[1] < 0.3 * distances[0]


@pytest.mark.long
def test_a_model_with_such_channels_everywhere_is_saved_by_layers_in_float32_or_refused(asked, trained):
    scaled(
        trained / "STNET_final.pdparams",
        trained / "scaled.pdparams",
        [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)],
    )
    try:
        proof = asked("int8", 216, weights="scaled.pdparams").report
        assert proof.in_float32
        assert proof.figures.equal >= 198
    except UserError as error:
        assert "precision int8 refused" in str(error)  # noqa: PT017  (either is right, a wrong class is not)


def test_auto_is_float32_for_an_engine_that_computes_nothing_else(int8, trained, clip_set):
    predictor = Predictor(
        trained / "STNET_final.pdparams", clip_set / "tiny.yaml", "paddle", "cpu", mode="test", precision="auto"
    )
    assert predictor.report is None


def test_calibration_without_a_readable_clip_is_one_line(asked, clip_set):
    path = clip_set.parent / "unreadable.list"
    for i in range(20):
        (clip_set.parent / f"unreadable{i}.mp4").write_bytes(b"no video")
    path.write_text("".join(f"unreadable{i}.mp4 {i % 4}\n" for i in range(20)), encoding="utf-8")
    predictor = asked("int8")
    precision = Precision("int8", str(path), unproven=True)  # or so few would be refused unread
    predictor = Predictor(predictor.weights, clip_set / "tiny.yaml", device="cpu", mode="test", precision=precision)
    with pytest.raises(UserError, match="none of the clips to calibrate with could be read"):
        predictor.engine  # noqa: B018
