"""The table of flags: run.sh follows it, and empty, repeated and overridden values mean what it says."""

import re
from pathlib import Path

import pytest

from stnet import cli, flags, runtime
from stnet.models import model_section
from stnet.utils.errors import UserError

RUN_SH = Path(__file__).parents[1] / "run.sh"


@pytest.fixture
def set_in_run_sh(monkeypatch):
    """Function that sets what run.sh's variables hold."""

    def setting(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"STNET_SET_{name}", value)

    return setting


def settings_lines():
    """The settings of run.sh as the table has them."""
    groups = {}
    for flag in flags.FLAGS:
        if flag.setting is not None:
            groups.setdefault(tuple(flag.actions), []).append(flag)
    for actions, group in groups.items():
        if actions != flags.ACTIONS:
            yield f"# {', '.join(actions)}"
        for flag in group:
            variable = f'{flag.name}="${{{flag.name}-{flag.setting}}}"'
            yield f"{variable:<37} # {flag.note or flag.help}"


def test_the_settings_of_run_sh_are_those_of_the_table():
    text = RUN_SH.read_text(encoding="utf-8")
    block = re.search(r"stnet/flags.py declares them.\n(.*?)# train, eval: processes\n", text, re.DOTALL).group(1)
    assert block.splitlines() == list(settings_lines())


@pytest.mark.parametrize("action", flags.ACTIONS)
def test_an_empty_value_is_one_that_is_not_given(action):
    words = [f"{flag.typed}=" for flag in flags.flags_of(action) if flag.kind in ("value", "list") and flag.name != "o"]
    assert {"--config=", "--weights_home=", "--model_name=", "--plugin=", "--batch_size="} <= set(words)
    assert flags.parse(action, None, [*words, "-o", ""]) == flags.parse(action, None, [])
    assert flags.config_values(flags.parse(action, None, words)) == {}


@pytest.mark.parametrize("action", flags.WRITING)
def test_a_flag_comes_before_a_setting_and_a_setting_before_the_default(action, set_in_run_sh):
    folder = flags.parse(action, None, []).save_dir
    assert folder in ("checkpoints", "finetune", "results", "inference_model")
    set_in_run_sh(save_dir="of run.sh", node_rank="0", epoch="3", weights="w")
    args = flags.parse(action, None, ["--save_dir="])
    assert (args.save_dir, args.typed) == ("of run.sh", [])
    assert ("TRAIN.epoch" in flags.config_values(args)) == (action in flags.TRAINING)
    assert flags.parse(action, None, ["--save_dir=typed"]).save_dir == "typed"


def test_a_flag_given_twice_is_said_and_the_last_one_counts(set_in_run_sh, caplog):
    set_in_run_sh(epoch="9")
    assert flags.parse("train", None, ["--epoch=2", "--epoch=2", "--epoch="]).epoch == 2
    assert caplog.messages == []
    assert flags.parse("train", None, ["--epoch=2", "--epoch=3", "--plugin=a", "--plugin=b"]).epoch == 3
    assert caplog.messages == ["--epoch is given twice: 3 counts, not 2"]


def test_keys_of_the_configuration_get_values_and_not_text():
    args = flags.parse(
        "train", None, ["--learning_rate=1e-3", "--batch_size=4", "--use_gpu=auto", "--pretrain=1e3", "--model_name=no"]
    )
    assert flags.config_values(args) == {
        "MODEL.name": "no", "TRAIN.use_gpu": "auto", "TRAIN.batch_size": 4, "TRAIN.pretrain": "1e3",
        "TRAIN.learning_rate": 0.001,
    }  # fmt: skip
    args = flags.parse("predict", None, ["--filelist=true", "--infer_topk=3", "--batch_size=2"])
    assert flags.config_values(args) == {
        "INFER.batch_size": 2, "INFER.filelist": "true", "MODEL.topk": 3,
    }  # fmt: skip


def resolved(clip_set, *words):
    return cli.load_run_config(
        flags.parse("train", None, ["--config", str(clip_set / "tiny.yaml"), *words]), model_section
    )


def test_the_last_one_typed_counts_and_what_is_typed_twice_is_said(clip_set, set_in_run_sh, caplog):
    set_in_run_sh(epoch="9", batch_size="3")
    config = resolved(clip_set, "-o", "TRAIN.epoch=7", "-o", "TRAIN.batch_size=3")
    assert (config.TRAIN.epoch, config.TRAIN.batch_size) == (7, 3)
    assert caplog.messages == []
    config = resolved(clip_set, "--epoch=5", "-o", "TRAIN.epoch=6", "-o", "MODEL.topk=1", "-o", "MODEL.topk=2")
    assert (config.TRAIN.epoch, config.MODEL.topk) == (6, 2)
    assert caplog.messages == [
        "TRAIN.epoch is given twice: 6 of -o counts, not 5 of --epoch",
        "MODEL.topk is given twice: 2 of -o counts, not 1 of -o",
    ]
    caplog.clear()
    config = resolved(clip_set, "-o", "TRAIN.epoch=6", "--epoch=5", "--epoch=4", "--save_dir=a", "--log_interval=1")
    assert config.TRAIN.epoch == 4
    assert caplog.messages == [
        "--epoch is given twice: 4 counts, not 5",
        "TRAIN.epoch is given twice: 5 of --epoch counts, not 6 of -o",
    ]


def test_more_classes_than_there_are_are_never_shown(clip_set):
    assert resolved(clip_set, "-o", "MODEL.topk=5").MODEL.topk == 4


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--port=65536", "argument --port: expected 0 to 65535, found 65536"),
        ("--max_seconds=nan", "argument --max_seconds: expected a number above 0, found nan"),
        ("--token=two words", "argument --token: expected letters, digits and . _ ~ + / = -"),
    ],
)
def test_a_wrong_value_of_the_server_is_refused(word, message, capsys):
    with pytest.raises(SystemExit) as error:
        flags.parse("serve", None, [word])
    assert error.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--epoch=ten", "argument --epoch: invalid positive int value: 'ten'"),
        ("--epoch=0", "argument --epoch: expected at least 1, found 0"),
        ("--use_gpu=yes", "argument --use_gpu: expected True or False, found 'yes'"),
        ("--no_such_flag", "unrecognized arguments: --no_such_flag"),
    ],
)
def test_a_wrong_value_is_refused_with_exit_code_2(word, message, capsys):
    with pytest.raises(SystemExit) as error:
        flags.parse("train", None, [word])
    assert error.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


def test_a_wrong_setting_of_run_sh_is_refused_as_the_flag_is(set_in_run_sh, capsys):
    set_in_run_sh(use_gpu="perhaps")
    with pytest.raises(SystemExit):
        flags.parse("eval", None, [])
    assert "argument --use_gpu: expected True or False, found 'perhaps'" in capsys.readouterr().err
    assert runtime.settings() == {"use_gpu": "perhaps"}


def test_a_video_can_be_named_with_or_without_a_flag_and_again(set_in_run_sh):
    args = flags.parse("predict", None, ["a.mp4", "--video_path=b.mp4", "--video_path", "c.mp4", "d.mp4"])
    assert (args.videos, args.video_path) == (["a.mp4", "d.mp4"], ["b.mp4", "c.mp4"])
    set_in_run_sh(video_path="of run.sh")
    assert flags.parse("predict", None, []).video_path == ["of run.sh"]
    assert flags.parse("predict", None, ["--video_path=b.mp4"]).video_path == ["b.mp4"]


def test_a_setting_of_train_is_none_of_predict(set_in_run_sh):
    set_in_run_sh(resume="auto")
    assert flags.parse("predict", None, []).resume is False
    assert flags.parse("train", None, []).resume == "auto"


def test_a_flag_that_is_nearly_one_is_not_taken_and_the_nearest_is_named(capsys):
    for word in ("--wieghts=a", "--weight=a"):  # a prefix is no abbreviation
        with pytest.raises(SystemExit):
            flags.parse("predict", None, [word])
        assert capsys.readouterr().err == f"error: unrecognized arguments: {word}; did you mean --weights?\n"


def test_a_misspelt_setting_is_refused_in_run_sh_and_warned_of_in_the_environment(set_in_run_sh, monkeypatch, caplog):
    monkeypatch.setenv("STNET_TYPED", "bash run.sh")
    monkeypatch.setenv("batchsize", "1")
    monkeypatch.setenv("http_proxy", "")
    set_in_run_sh(epoch="1", nproc="2", folder="mine")
    flags.parse("train", None, [])
    assert caplog.messages == ["batchsize of the environment is no setting of run.sh; did you mean batch_size?"]
    set_in_run_sh(epocch="1")
    with pytest.raises(UserError, match=r"^run.sh sets epocch, which is no setting; did you mean epoch\?$"):
        flags.parse("train", None, [])
