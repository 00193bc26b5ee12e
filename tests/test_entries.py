"""train.py, eval.py, predict.py and inference_model.py, called in this process."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import tiny_settings, write_config
from entries import eval_entry, failing, predict, run, train

from stnet import flags
from stnet.backends.engines import ENGINES

PROJECT = Path(__file__).parents[1]


def test_training_writes_a_checkpoint_an_epoch_and_a_final_one(trained):
    names = sorted(path.name for path in trained.iterdir() if path.is_file())
    suffixes = ("json", "pdopt", "pdparams")
    checkpoints = [f"STNET_{n}.{s}" for n in ("best", "epoch0", "epoch1", "final") for s in suffixes]
    assert names == [*checkpoints, "train_config.yaml", "train_log.jsonl", "training.html"]
    about = json.loads((trained / "STNET_final.json").read_text())
    assert about["model"]["num_layers"] == 18
    assert about["model"]["num_classes"] == 4
    assert about["labels"] == ["a", "b", "c", "d"]
    progress = about["progress"]
    assert (progress["epoch"], progress["step"], progress["batch"], progress["seed"]) == (2, 6, 0, 0)
    rows = [json.loads(line) for line in (trained / "train_log.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in rows if row["kind"] == "train"] == [
        ("train", i + 1) for i in range(6)
    ]
    assert progress["best"] == max(row["top1"] for row in rows if row["kind"] == "valid")
    assert {"epoch", "lr", "loss", "top1", "top5", "clips_per_s", "data_wait", "memory_mb", "eta_s"} <= set(rows[0])


def test_a_dry_run_looks_at_everything_and_writes_nothing(clip_set, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    flags = ["--config", clip_set / "tiny.yaml", "--pretrain=none", "--save_dir", tmp_path / "out", "--dry_run"]
    assert run(train, *flags) == 0
    assert re.search(r"train list: 10 clips, 10 read, 0 of them unreadable", caplog.text)
    assert re.search(
        r"parameters and statistics 11.\d\d M, 0.\d\d G multiply-adds a clip of \[2, 6, 32, 32\]", caplog.text
    )
    assert re.search(r"3 steps an epoch, 2 epochs; a step takes \d+\.\d\d s and \d+ MB; training takes", caplog.text)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "x.list").write_text(f"{clip_set}/val 0.mp4 0\nnone.mp4 1\nnone either.mp4 1\n")
    failing(
        "train",
        "2 of 3 clips of the train list cannot be read",
        capsys,
        *flags,
        "-o",
        f"TRAIN.filelist={tmp_path}/x.list",
    )


def test_two_runs_do_not_write_into_one_folder(clip_set, tmp_path, capsys):
    from stnet.utils.atomic import exclusive_lock

    with exclusive_lock(tmp_path):
        failing(
            "train",
            "another run is writing into",
            capsys,
            "--config",
            clip_set / "tiny.yaml",
            "--pretrain=none",
            "--save_dir",
            tmp_path,
        )
    assert run(train, "--config", clip_set / "tiny.yaml", "--pretrain=none", "--save_dir", tmp_path, "--epoch=1") == 0


def losses(text):
    return re.findall(r"epoch (\d) step (\d)/\d loss (\S+)", text)


def train_losses(clip_set, folder, caplog, *flags):
    caplog.clear()
    caplog.set_level("INFO")
    code = run(
        train,
        "--config",
        clip_set / "tiny.yaml",
        "--save_dir",
        folder,
        "--log_interval=1",
        "--pretrain=none",
        "--fix_random_seed=True",
        *flags,
    )
    assert code == 0
    return losses(caplog.text)


def test_a_fixed_seed_gives_the_same_losses_and_resuming_goes_on(clip_set, tmp_path, caplog):
    first = train_losses(clip_set, tmp_path / "a", caplog)
    again = train_losses(clip_set, tmp_path / "b", caplog)
    assert len(first) == 6
    assert first == again
    resumed = train_losses(clip_set, tmp_path / "c", caplog, f"--resume={tmp_path / 'a/STNET_epoch0.pdparams'}")
    assert [row[:2] for row in resumed] == [row[:2] for row in first[3:]]
    assert resumed == first[3:]


def test_without_a_fixed_seed_losses_differ(clip_set, tmp_path, caplog):
    first = train_losses(clip_set, tmp_path / "a", caplog, "--fix_random_seed=False", "--epoch=1")
    assert first != train_losses(clip_set, tmp_path / "b", caplog, "--fix_random_seed=False", "--epoch=1")


def test_resuming_a_finished_run_says_so(clip_set, trained, capsys):
    code = run(train, "--config", clip_set / "tiny.yaml", "--resume", trained / "STNET_final.pdparams")
    assert code == 1
    assert "all 2 epochs are done; raise --epoch" in capsys.readouterr().err


def test_validation_runs_every_valid_interval(clip_set, tmp_path, caplog):
    train_losses(clip_set, tmp_path / "a", caplog, "--valid_interval=2")
    assert re.findall(r"valid epoch (\d)", caplog.text) == ["1"]
    train_losses(clip_set, tmp_path / "b", caplog, "--valid_interval=0")
    assert "valid epoch" not in caplog.text


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(clip_set, tmp_path, capsys):
    code = run(
        train,
        "--config",
        clip_set / "tiny.yaml",
        "--save_dir",
        tmp_path,
        "--pretrain=none",
        "--learning_rate=1e30",
        "--fix_random_seed=True",
    )
    assert code == 1
    assert re.search(r"the loss of step [23] \(epoch 0\) is (nan|inf)", capsys.readouterr().err)
    assert not list(tmp_path.glob("*.pdparams"))


def test_eval_scores_every_clip_and_writes_the_results(clip_set, trained, tmp_path):
    weights = trained / "STNET_final.pdparams"
    assert run(eval_entry, "--config", clip_set / "tiny.yaml", "--weights", weights, "--save_dir", tmp_path) == 0
    found = json.loads((tmp_path / "eval_results.json").read_text())
    assert found["count"] == 6
    assert found["skipped"] == []
    assert found["weights"] == str(weights)
    assert found["config"]["TEST"]["seg_num"] == 3
    assert 0 <= found["TOP1_ACC"] <= found["TOP5_ACC"] == 1  # four classes: always among the first five
    for batch_size in (1, 6):
        other = tmp_path / str(batch_size)
        run(
            eval_entry,
            "--config",
            clip_set / "tiny.yaml",
            "--weights",
            weights,
            "--save_dir",
            other,
            "--batch_size",
            batch_size,
        )
        same = json.loads((other / "eval_results.json").read_text())
        assert same["TOP1_ACC"] == found["TOP1_ACC"]
        assert same["loss"] == pytest.approx(found["loss"], rel=1e-5)


def test_a_folder_with_results_holds_the_files_of_one_evaluation(clip_set, trained, tmp_path, capsys):
    flags = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--save_dir", tmp_path]
    assert run(eval_entry, *flags) == 0
    files = json.loads((tmp_path / "eval_results.json").read_text())["files"]
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in [*files, "eval_results.json"]}
    assert max(times, key=times.get) == "eval_results.json"
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    failing("eval", "cannot write .*report.html", capsys, *flags)
    assert not (tmp_path / "eval_results.json").exists()


def test_a_second_evaluation_into_a_folder_is_refused_and_predict_is_not(clip_set, trained, tmp_path, capsys):
    from stnet.utils.atomic import exclusive_lock

    flags = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--save_dir", tmp_path]
    with exclusive_lock(tmp_path):
        failing("eval", "another run is writing into", capsys, *flags)
        assert run(predict, *flags, "--video_path", clip_set / "val 0.mp4") == 0


def test_scores_that_are_not_finite_are_null_in_the_results(clip_set, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(ENGINES, "_entries", dict(ENGINES._entries))  # without the plugin's, afterwards
    (tmp_path / "nan.py").write_text(
        "import numpy as np\nfrom stnet.backends.engines import ENGINES, Engine\n"
        "@ENGINES.register('only_nan')\nclass OnlyNan(Engine):\n"
        "    def make(self, task):\n        return lambda clips: np.full((len(clips), 4), np.nan, np.float32)\n"
    )
    flags = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--save_dir", tmp_path]
    assert run(eval_entry, *flags, "--plugin", tmp_path / "nan.py", "--engine=only_nan") == 0
    found = json.loads((tmp_path / "eval_results.json").read_text(), parse_constant=pytest.fail)
    assert (found["loss"], found["ECE"], found["TOP1_ACC"], found["TOP5_ACC"]) == (None, None, 0, 0)


def test_eval_counts_what_it_skips(clip_set, trained, tmp_path):
    (tmp_path / "x.list").write_text(f"{clip_set}/val 0.mp4 0\nnone.mp4 1\n")
    code = run(
        eval_entry,
        "--config",
        clip_set / "tiny.yaml",
        "--weights",
        trained / "STNET_final.pdparams",
        "--save_dir",
        tmp_path,
        "-o",
        f"TEST.filelist={tmp_path}/x.list",
        "-o",
        "TEST.max_bad_ratio=0.5",
    )
    found = json.loads((tmp_path / "eval_results.json").read_text())
    assert code == 0
    assert (found["count"], found["skipped"]) == (1, [{"path": "none.mp4", "reason": "no such file"}])


def test_every_flag_of_the_original_is_accepted():
    common = ["--model_name=STNET", "--config=c", "--batch_size=4", "--use_gpu=True", "--log_interval=1"]
    flags.parse(
        "train",
        None,
        [
            *common,
            "--learning_rate=0.1",
            "--pretrain=p",
            "--resume=r",
            "--epoch=2",
            "--valid_interval=1",
            "--save_dir=s",
            "--fix_random_seed=False",
            "--no_memory_optimize",
        ],
    )
    flags.parse("eval", None, [*common, "--weights=w", "--save_dir=s"])
    words = [*common, "--weights=w", "--save_dir=s", "--filelist=f", "--infer_topk=3", "--video_path=v"]
    args = flags.parse("predict", None, words)
    assert (args.batch_size, args.use_gpu, args.infer_topk, args.video_path) == (4, True, 3, ["v"])
    words = ["--model_name=STNET", "--config=c", "--use_gpu=False", "--weights=w", "--batch_size=1", "--save_dir=s"]
    assert flags.parse("inference", None, words).use_gpu is False


@pytest.mark.parity
@pytest.mark.parametrize("name", ["synthetic", "real"])
def test_reader_and_network_together_give_the_originals_probabilities(name, request, tmp_path):
    from pathlib import Path

    from stnet.models.stnet.names import structured_to_original
    from stnet.models.stnet.network import StNet

    golden_params = pytest.importorskip("golden_params")
    videos = request.getfixturevalue("videos" if name == "synthetic" else "real_videos")
    golden = json.loads((Path(__file__).parent / "golden" / f"e2e_{name}.json").read_text())
    names = structured_to_original(50)
    weights = {
        k: paddle.to_tensor(golden_params.golden_param(names[k], v.shape))
        for k, v in StNet(50, 400, 5).state_dict().items()
    }
    paddle.save(weights, str(tmp_path / "golden.pdparams"))
    settings = tiny_settings(tmp_path)
    settings["MODEL"] = {"name": "STNET"}
    settings["INFER"] = {"seg_num": 25, "target_size": 256, "num_reader_threads": 1}
    for row in golden:
        shutil.copy(videos / row["file"], tmp_path)
    (tmp_path / "x.list").write_text("".join(f"{row['file']}\n" for row in golden))
    assert (
        run(
            predict,
            "--config",
            write_config(tmp_path / "c.yaml", settings),
            "--weights",
            tmp_path / "golden.pdparams",
            "--filelist",
            tmp_path / "x.list",
            "--save_dir",
            tmp_path,
            "--infer_topk=400",
        )
        == 0
    )
    results = json.loads((tmp_path / "predict_results.json").read_text())["results"]
    for row, result in zip(golden, results):
        found = result["predictions"]
        assert [p["class"] for p in found[:5]] == row["top5"]
        np.testing.assert_allclose([p["probability"] for p in found[:5]], row["prob"], rtol=0, atol=1e-5)
        norm = np.linalg.norm([p["probability"] for p in found])
        assert norm == pytest.approx(row["all_prob_l2"], abs=1e-5)


def test_labels_of_other_classes_stop_training_before_it_begins(clip_set, tmp_path, capsys):
    flags = [
        "--config",
        clip_set / "tiny.yaml",
        f"--save_dir={tmp_path}",
        "--pretrain=none",
        "-o",
        "MODEL.num_classes=5",
    ]
    failing("train", "labels.json names 4 classes, but MODEL.num_classes is 5", capsys, *flags)


def test_predict_without_a_video_says_that_it_takes_the_list_of_the_configuration(
    clip_set, trained, tmp_path, capsys, caplog
):
    flags = ["--config", clip_set / "tiny.yaml", f"--weights={trained}/STNET_final.pdparams", f"--save_dir={tmp_path}"]
    assert run(predict, *flags) == 0
    assert f"no video is given: taking INFER.filelist {clip_set / 'infer.list'}" in caplog.text
    failing("predict", "no video is given, and INFER.filelist none.list does not exist; name videos", capsys,
            *flags, "-o", "INFER.filelist=none.list")  # fmt: skip


def test_a_predict_that_is_refused_leaves_the_configuration_of_the_last_one(clip_set, trained, tmp_path, capsys):
    flags = ["--config", clip_set / "tiny.yaml", f"--save_dir={tmp_path}", f"--video_path={clip_set / 'val 0.mp4'}"]
    assert run(predict, *flags, f"--weights={trained}/STNET_final.pdparams") == 0
    before = (tmp_path / "predict_config.yaml").read_bytes()
    message = "the folder holds no Paddle tensors; it holds STNET_"
    failing("predict", message, capsys, *flags, f"--weights={trained}", "-o", "INFER.batch_size=3")
    assert (tmp_path / "predict_config.yaml").read_bytes() == before
