"""Where a run starts: what its folder holds, which checkpoint it takes, after which clip it goes on."""

import json
import os
import shutil
import signal

import paddle
import pytest
from entries import failing, run, train
from training_helpers import make_trainer, saved, train_losses, weights

from stnet.cli import advised
from stnet.reader.loader import EpochOrder
from stnet.training import resume
from stnet.training.log import Journal, read_journal
from stnet.training.report import write_training_report
from stnet.training.trainer import Progress
from stnet.utils.errors import UserError
from stnet.weights import checkpoint


@pytest.fixture
def used(trained, tmp_path):
    """A folder with the run of two epochs, to be spoilt."""
    return shutil.copytree(trained, tmp_path / "used")


def digests(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# A used folder ----------------------------------------------------------------------------------------------------


def test_a_new_run_refuses_a_used_folder_and_says_the_three_ways_on(clip_set, used, capsys):
    before = digests(used)
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", used]
    held = "holds an earlier run: STNET_best, STNET_epoch0, STNET_epoch1, STNET_final, train_log.jsonl; "
    ways = "set --resume=auto to go on with it, --overwrite to remove its checkpoints and logs, or --save_dir"
    failing("train", held + ways, capsys, *flags, "--pretrain=none")
    failing("train", held + ways, capsys, *flags, "--pretrain=none", "--dry_run")
    failing("train", "set one of them", capsys, *flags, "--resume=auto", "--overwrite")
    assert digests(used) == before


def test_overwrite_removes_checkpoints_and_logs_and_nothing_else(clip_set, used):
    for name in ("quarantine.list", "my notes.txt", "STNET_mine.pdparams", "log/workerlog.0", "visualdl/mine"):
        (used / name).parent.mkdir(exist_ok=True)
        (used / name).write_text("")
    for name in ("visualdl/vdlrecords.1.log", "train_log.png"):  # the second by earlier versions
        (used / name).write_text("")
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", used, "--pretrain=none", "--valid_interval=0"]
    assert run(train, *flags, "--epoch=1", "--overwrite", "--log_interval=1") == 0
    assert saved(used) == ["STNET_epoch0", "STNET_final"]
    assert len(train_losses(used)) == 3
    kept = {str(path.relative_to(used)) for path in used.rglob("*") if path.is_file() and path.suffix != ".json"}
    assert kept >= {"quarantine.list", "my notes.txt", "STNET_mine.pdparams", "log/workerlog.0", "visualdl/mine"}
    assert not {"visualdl/vdlrecords.1.log", "train_log.png"} & kept


def test_only_a_checkpoint_with_state_of_this_folder_goes_on_in_it(trained, used, tmp_path, monkeypatch):
    own = str(used / "STNET_epoch0.pdparams")
    assert resume.choose(own, False, str(used), "STNET") == own
    monkeypatch.chdir(tmp_path)
    assert resume.choose("used/STNET_best", False, "used", "STNET") == "used/STNET_best"
    assert resume.choose("auto", False, "used", "STNET") == "used/STNET_epoch1"
    (used / "bare.pdparams").write_bytes((used / "STNET_best.pdparams").read_bytes())
    for other in ("used/bare.pdparams", str(trained / "STNET_epoch0.pdparams"), ""):
        with pytest.raises(UserError, match="used holds an earlier run"):
            resume.choose(other, False, "used", "STNET")
        assert resume.choose(other, True, "used", "STNET") == other
    with pytest.raises(UserError, match="^used/STNET_epoch9: no such file; used holds STNET_best, "):
        resume.choose("used/STNET_epoch9", False, "used", "STNET")
    with pytest.raises(UserError, match="STNET_epoch0.pdparams cannot be gone on with and removed"):
        resume.choose(own, True, "used", "STNET")


def test_best_and_final_alone_are_no_place_to_go_on_from_by_themselves(used):
    for path in used.glob("STNET_epoch*"):
        path.unlink()
    with pytest.raises(UserError) as error:
        resume.choose("auto", False, str(used), "STNET")
    assert "STNET_best, STNET_final, train_log.jsonl; set --resume to one of these" in advised(error.value)


def test_what_a_launcher_or_a_run_without_a_step_left_is_no_use(tmp_path):
    for name in ("log/workerlog.0", "quarantine.list", "train_log.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert resume.choose("", False, str(tmp_path), "STNET") == ""
    (tmp_path / "train_log.jsonl").write_text('{"kind": "train", "step": 1, "loss": 1.0}\n')
    with pytest.raises(UserError, match="holds an earlier run: train_log.jsonl$"):
        resume.choose("", False, str(tmp_path), "STNET")
    assert resume.choose("auto", False, str(tmp_path), "STNET") == ""  # killed before its first checkpoint


def test_going_back_moves_later_checkpoints_aside(clip_set, used):
    later = (used / "STNET_epoch1.pdopt").read_bytes()
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", used, "--valid_interval=0", "--learning_rate=0.001"]
    assert run(train, *flags, "--log_interval=1", f"--resume={used}/STNET_epoch0.pdparams") == 0
    assert (used / "superseded" / "STNET_epoch1.pdopt").read_bytes() == later
    second = (used / "STNET_epoch1.pdopt").read_bytes()
    assert second != later
    assert len(train_losses(used)) == 6
    resume.clear(str(used), "STNET", 3, overwrite=False)  # back once more: the first is still there
    assert (used / "superseded" / "STNET_epoch1.pdopt").read_bytes() == later
    assert (used / "superseded-2" / "STNET_epoch1.pdopt").read_bytes() == second
    shutil.rmtree(used / "superseded")  # the next one does not take the place of the second
    shutil.copytree(used / "superseded-2", used, dirs_exist_ok=True)
    resume.clear(str(used), "STNET", 3, overwrite=False)
    assert (used / "superseded-2" / "STNET_epoch1.pdopt").read_bytes() == second
    assert (used / "superseded-3" / "STNET_epoch1.pdopt").read_bytes() == second
    resume.clear(str(used), "STNET", 0, overwrite=True)
    assert [path.name for path in used.rglob("STNET_*")] == []


# --resume=auto ----------------------------------------------------------------------------------------------------

DAMAGES = {
    "no text": (b"\xff\xfe{", "its .json is damaged"),
    "nested": (b"[" * 100000, "nested too deeply"),
    "a list": (b"[1]", "it is no description of a checkpoint"),
    "another step": ('"step": 6', '"step": 60', "its .json and its .pdopt are of different steps"),
    "an early step": ('"step": 6', '"step": 0', "its .json and its .pdopt are of different steps"),
    "a huge step": ('"step": 6', '"step": 1e999', "its step is inf"),
    "no step": ('"step": 6', '"stop": 6', "its step is None"),
    "text as step": ('"step": 6', '"step": "6"', "its step is '6'"),
    "another epoch": ('"epoch": 2', '"epoch": 1', "it is of epoch 1, its name says 2"),
    "no digests": ('"sha256"', '"sha1"', "it is no description of a checkpoint"),
    "no digest": ('"pdopt"', '"pdupt"', "its .json is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_auto_takes_an_older_checkpoint_and_says_why(used, caplog, name):
    caplog.set_level("INFO")
    *change, reason = DAMAGES[name]
    path = used / "STNET_epoch1.json"
    if len(change) == 2:
        assert change[0] in path.read_text()
        path.write_text(path.read_text().replace(*change))
    else:
        path.write_bytes(change[0])
    assert resume.choose("auto", False, str(used), "STNET") == f"{used}/STNET_epoch0"
    said = [record.getMessage() for record in caplog.records]
    assert said[-1] == f"newest complete checkpoint in {used}: {used}/STNET_epoch0"
    assert [line for line in said if line.startswith(f"passed over: {used}/STNET_epoch1: ") and reason in line], said


def test_damage_to_the_newest_checkpoint_does_not_cost_the_new_ones(clip_set, used):
    (used / "STNET_epoch1.pdopt").write_bytes(b"")
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", used, "--valid_interval=0", "--resume=auto"]
    assert run(train, *flags, "-o", "TRAIN.keep=1") == 0
    assert saved(used) == ["STNET_best", "STNET_epoch1", "STNET_final"]
    assert checkpoint.fault(f"{used}/STNET_epoch1") == ""


def test_only_damaged_checkpoints_are_an_error_and_not_a_start_from_zero(clip_set, used, capsys):
    (used / "STNET_epoch0.json").unlink()
    (used / "STNET_epoch1.pdparams").write_bytes(b"junk")
    before = digests(used)
    message = "no checkpoint in .* is whole .*STNET_epoch0: its .json is missing; .*STNET_epoch1: its .pdparams is not"
    failing("train", message, capsys, "--config", clip_set / "tiny.yaml", "--save_dir", used, "--resume=auto")
    assert digests(used) == before


def test_nothing_in_the_log_ends_a_run(used, tiny_config):
    rows = read_journal(used / "train_log.jsonl")
    lines = [b"\xff\xfe\x00", b"[" * 100000, b"7", b'{"kind": "train"}', b'{"kind": [], "step": 1}']
    lines += [b'{"kind": "train", "step": 1e999}', b'{"kind": "train", "step": 1, "loss": "x"}', b'{"step":']
    with open(used / "train_log.jsonl", "ab") as file:
        file.write(b"\n".join(lines))
    Journal(str(used), step=3).close()
    left = read_journal(used / "train_log.jsonl")
    assert left[:-1] == [row for row in rows if row["step"] <= 3]
    assert left[-1]["loss"] == "x"
    write_training_report(used / "training.html", left, None, [], tiny_config)
    assert "</html>" in (used / "training.html").read_text()


# The place within an epoch ----------------------------------------------------------------------------------------


def changed(clip_set, tmp_path, *overrides):
    again = make_trainer(clip_set, tmp_path, *overrides)
    again.resume(str(tmp_path / "STNET_step2"))
    return again


@pytest.fixture
def within(clip_set, tmp_path):
    """A folder with a checkpoint two batches of four into an epoch of ten clips."""
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=1")
    for batch in list(trainer.loader.epoch(0))[:2]:
        trainer.train_step([batch])
    trainer.progress.batch = 2
    trainer.save("step2")
    return tmp_path


def test_another_batch_size_goes_on_at_the_right_clip_or_is_refused(clip_set, within, caplog):
    caplog.set_level("INFO")
    order = [i for batch in EpochOrder(10, 4, True, seed=3).batches(0) for _, i in batch][:10]
    again = changed(clip_set, within, "TRAIN.batch_size=2")
    assert "batch_size was 4 and is 2: going on after the same 8 clips" in caplog.text
    assert [i for batch in again.loader.epoch(0, again.progress.batch) for i in batch.indices] == order[8:]
    with pytest.raises(UserError, match="8 clips into an epoch of batches of 4, where no batch of 3 begins") as error:
        changed(clip_set, within, "TRAIN.batch_size=3")
    assert "; set --batch_size to that of the run, or resume from the end of an epoch" in advised(error.value)


def test_another_list_is_refused_and_the_seed_stays_the_runs(clip_set, within, caplog):
    caplog.set_level("INFO")
    lines = (clip_set / "train.list").read_text().splitlines()
    (within / "x.list").write_text("\n".join(f"{clip_set}/{line}" for line in lines[3:]))
    with pytest.raises(UserError, match=r"of another list \(10 clips then, 9 now\)$") as error:
        changed(clip_set, within, f"TRAIN.filelist={within}/x.list")
    assert "; set TRAIN.filelist to the list of that run" in advised(error.value)
    again = make_trainer(clip_set, within)
    again.seed = 5
    again.loader.set_seed(5)
    again.resume(str(within / "STNET_step2"))
    assert "the order of the clips is that of the resumed run: seed 3" in caplog.text
    assert (again.seed, again.loader.order.seed, again.loader.dataset.seed, again.progress.batch) == (3, 3, 3, 2)


def test_a_checkpoint_without_a_record_goes_on_by_the_batch_size_of_its_configuration(caplog):
    order = EpochOrder(10, 2, True)
    data = {"list": "x", "clips": 10, "batch_size": 2}
    assert resume.next_batch({"batch": 2}, data, order, 4) == 4
    assert "does not say of which list it is" in caplog.text
    assert resume.next_batch({"batch": 2}, data, order) == 2
    assert resume.next_batch({"batch": 3}, data, order, 4) == 5  # the epoch's clips are all read
    with pytest.raises(UserError, match="3 clips into an epoch"):
        resume.next_batch({"batch": 1}, data, order, 3)
    assert resume.next_batch({"batch": 0}, data, order, 3) == 0


# Checkpoints that switch as a whole -------------------------------------------------------------------------------


def save_and_die(folder, config, value, call):
    """Save in a process that kills itself before its `call`-th change of a name. Returns whether it came to that."""
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

        for name in ("replace", "rename", "rmdir", "remove", "fsync"):
            setattr(os, name, deadly(getattr(os, name)))
        save(folder, config, value)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def save(folder, config, value):
    network = paddle.nn.Linear(1, 1, bias_attr=False)
    network.weight.set_value(paddle.full([1, 1], float(value)))
    state = {"progress": {"epoch": 1, "step": value}, "optimizer": {"value": value}}
    checkpoint.save(str(folder), "STNET_final", network, state, config)


def test_a_kill_at_any_moment_leaves_the_old_checkpoint_or_the_new_one(tiny_config, tmp_path):
    seen = []
    for call in range(1, 100):
        folder = tmp_path / str(call)
        save(folder, tiny_config, 1)
        if not save_and_die(folder, tiny_config, 2, call):
            break
        base = str(folder / "STNET_final")
        for _ in range(2):  # as it is, and as the next run leaves it
            assert checkpoint.fault(base) == ""
            value = checkpoint.read_description(f"{base}.pdparams")["progress"]["step"]
            assert paddle.load(f"{base}.pdparams")["weight"].item() == value
            assert checkpoint._read_state(checkpoint.paths(base)["pdopt"])["optimizer"] == {"value": value}
            seen.append(value)
            checkpoint.finish_all(str(folder), "STNET")
    assert call > 10
    assert seen == sorted(seen, key=seen.index)
    assert {1, 2} == set(seen)
    assert sorted(path.name for path in folder.iterdir()) == [f"STNET_final.{s}" for s in ("json", "pdopt", "pdparams")]


def test_a_damaged_description_does_not_end_the_run(clip_set, used):
    trainer = make_trainer(clip_set, used, "TRAIN.epoch=3")
    before = weights(trainer)
    about = json.loads((used / "STNET_final.json").read_text())
    (used / "STNET_final.json").write_text(json.dumps({**about, "sha256": 5}))
    with pytest.raises(UserError, match="STNET_final.json is damaged") as error:
        trainer.resume(str(used / "STNET_final"))
    assert advised(error.value).endswith("; delete it to use the weights without it")
    assert all((weights(trainer)[name] == value).all() for name, value in before.items())


def test_a_run_that_accumulates_more_than_before_ends_its_groups_where_an_uninterrupted_one_does(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.batch_size=1", "TRAIN.accumulate_steps=4")
    trainer.progress = Progress(epoch=0, step=2, batch=2)  # of ten batches; each was a step of its own until here
    assert (trainer.steps_in_epoch, trainer.steps_per_epoch) == (0, 3)
    groups, steps = [], []
    trainer.train_step = lambda group: groups.append(len(group))
    trainer.after_step = lambda last: steps.append(trainer.steps_in_epoch)
    trainer.train_epoch()
    trainer.loader.close()
    assert (groups, steps) == ([2, 4, 2], [1, 2, 3])
