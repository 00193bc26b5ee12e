"""The flags of train, eval, predict, inference and serve, each declared once, in FLAGS.

argparse's parsers, the settings at the top of run.sh and the keys that flags replace in the configuration come from
this table. The command line wins over run.sh's settings, and these over the configuration. An empty value means "not
given". A key typed twice with different values, by a flag or by -o, is warned of, and the last one counts; run.sh's
settings do not count as typed.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from stnet import runtime
from stnet.utils.errors import UserError

logger = logging.getLogger("stnet")

# Section of the configuration that an action reads.
SECTIONS = {
    "train": "TRAIN",
    "finetune": "TRAIN",
    "eval": "TEST",
    "predict": "INFER",
    "inference": "INFER",
    "serve": "INFER",
}
ACTIONS = tuple(SECTIONS)
TRAIN, FINETUNE, PREDICT, INFERENCE, SERVE = ("train",), ("finetune",), ("predict",), ("inference",), ("serve",)
TRAINING, LOOPS = ("train", "finetune"), ("train", "finetune", "eval", "predict")
WRITING = ("train", "finetune", "eval", "predict", "inference")
SCORING, USING = ("eval", "predict", "serve"), ("eval", "predict", "inference", "serve")
FOLDERS = {
    "train": "checkpoints",
    "finetune": "finetune",
    "eval": "results",
    "predict": "results",
    "inference": "inference_model",
}
_CONFIGS = {
    action: "configs/stnet_finetune.yaml" if action == "finetune" else "configs/stnet.yaml" for action in ACTIONS
}


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return value


def share(text: str) -> float:
    """A number above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, found {text}")
    return value


def port_number(text: str) -> int:
    """A whole number from 0 to 65535."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, found {value}")
    return value


def token_text(text: str) -> str:
    """Characters that need no escape in an HTTP header or a URL."""
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", text):
        raise argparse.ArgumentTypeError("expected letters, digits and . _ ~ + / = -")
    return text


def path_prefix(text: str) -> str:
    """A path such as /videos/stnet, without the slash at its end."""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", text) or {".", ".."} & {*text.split("/")}:
        raise argparse.ArgumentTypeError(f"expected a path such as /stnet, found {text!r}")
    return text.rstrip("/")


def boolean(text: str) -> bool:
    """True or False, in any case."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, found {text!r}") from None


def device_choice(text: str) -> bool | Literal["auto"]:
    """True, False or auto."""
    return "auto" if text.lower() == "auto" else boolean(text)


@dataclass(frozen=True)
class Flag:
    """A flag of some actions.

    Args:
        default: value where it is not given; a dict: one for each action.
        parse: from text to value; raises ValueError or ArgumentTypeError.
        key: SECTION.key of the configuration that a given value replaces; "*" is the section that the action reads.
        setting: default of run.sh's variable of the same name; None: there is no variable.
        note: comment of that variable; default: `help`.
        alone: value where the flag stands without one; None: it needs one.
        kind: "value"; "switch", without a value; "list", repeatable; "words", the positional arguments.
    """

    name: str
    help: str
    actions: Sequence[str] = ACTIONS
    default: Any = ""
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    key: str = ""
    setting: str | None = None
    note: str = ""
    alone: Any = None
    kind: Literal["value", "switch", "list", "words"] = "value"

    @property
    def typed(self) -> str:
        """The flag on the command line, such as "--epoch"."""
        if self.kind == "words":
            return self.name
        return f"--{self.name}" if self.name != "o" else "-o"

    def key_of(self, action: str) -> str:
        """The key of the configuration for an action."""
        return self.key.replace("*", SECTIONS[action])


# In the order of run.sh's settings: those of more actions first.
FLAGS = (
    Flag("model_name", "model; default: MODEL.name of the config", metavar="NAME", key="MODEL.name"),
    Flag("config", "YAML file (default: %(default)s)", default=_CONFIGS, metavar="FILE"),
    Flag("o", "override one value of the config; repeatable", metavar="SECTION.key=value", kind="list"),
    Flag("use_gpu", "auto: the GPU if one works; default: TRAIN.use_gpu of the config", parse=device_choice,
         metavar="True|False|auto", key="TRAIN.use_gpu", setting="auto",
         note="True, False, auto: the GPU if one works"),
    Flag("batch_size", "clips a step, over all cards", parse=positive_int, metavar="N", key="*.batch_size", setting=""),
    Flag("save_dir", "where files go (default: %(default)s)", WRITING, FOLDERS, metavar="DIR", setting="",
         note="default: checkpoints (train), results (eval, predict), inference_model"),
    Flag("weights_home", "cache of released weights (default: ~/.paddle/weights)", metavar="DIR"),
    Flag("weights_url", "mirror of the released weights; none: never download", metavar="URL"),
    Flag("plugin", "Python file that registers a model, clip format, engine or metric of your own; repeatable",
         metavar="FILE", kind="list"),
    Flag("debug", "show the configuration, and the traceback of a user error", kind="switch"),
    Flag("log_interval", "steps between log lines (default: %(default)s)", LOOPS, 10, positive_int, "N", setting="10",
         note="steps between log lines"),
    Flag("weights", "weights; default: the released ones", USING, metavar="FILE", setting="",
         note="default: the released ones"),
    Flag("precision", "fp32, bf16, int8, or auto: the fastest that is proven (default: %(default)s)", USING, "fp32",
         metavar="fp32|bf16|int8|auto", setting="", note="fp32, bf16, int8, auto: the fastest that is proven"),
    Flag("calibrate", "clips of your kind (list, folder, glob) that bf16 or int8 is calibrated and proven with; kept "
         "afterwards", USING, metavar="LIST"),
    Flag("agreement", "share of the clips that must keep their class at low precision (default: %(default)s)", USING,
         0.99, float, "SHARE"),
    Flag("difference", "how far a clip's probability may move at low precision (default: %(default)s)", USING, 0.2,
         float, "P"),
    Flag("unproven", "use bf16 or int8 although the clips do not prove it", USING, kind="switch"),
    Flag("engine", "what computes the logits: auto (the fastest that works here), paddle (the network as it is), "
         "inference, onnxruntime, or one of a plugin", SCORING, "auto", metavar="NAME", setting="",
         note="auto, paddle, inference, onnxruntime"),
    Flag("reject", "fit and keep the threshold below which a clip is unknown: this share of the list's clips keeps its "
         "class (alone: 0.95)", ("eval",), parse=share, metavar="SHARE", alone=0.95),
    Flag("reject", "answer unknown below the threshold that eval --reject has kept", ("predict", "serve"),
         kind="switch"),
    Flag("pretrain", "weights to start from: a file of an ImageNet ResNet or of a StNet; released: the released StNet; "
         "none: random values; default: TRAIN.pretrain of the config, or else the released ResNet-50", TRAINING,
         metavar="FILE", key="TRAIN.pretrain", setting="", note="weights to start from: a file, released, none"),
    Flag("resume", "checkpoint to go on from, weights to fine-tune, or auto: the newest checkpoint in save_dir", TRAIN,
         metavar="FILE", setting="", note="checkpoint to go on from; auto: the newest in save_dir"),
    Flag("epoch", "epochs", TRAINING, parse=positive_int, metavar="N", key="TRAIN.epoch", setting=""),
    Flag("learning_rate", "initial learning rate", TRAINING, parse=float, metavar="RATE", key="TRAIN.learning_rate",
         setting=""),
    Flag("valid_interval", "epochs between validations; 0: none (default: %(default)s)", TRAIN, 1, int, "N",
         setting="1", note="epochs between validations; 0: none"),
    Flag("fix_random_seed", "same seed, same machine: the same losses", TRAIN, False, boolean, "True|False",
         setting="False"),
    Flag("overwrite", "start anew in a save_dir that holds another run: its checkpoints and logs are removed", TRAIN,
         kind="switch"),
    Flag("no_memory_optimize", "accepted for old scripts; has no effect", TRAIN, kind="switch"),
    Flag("dry_run", "check config, lists, files, weights and one step; stop", TRAIN, kind="switch"),
    Flag("videos", "your videos: a folder with one sub-folder a class, a CSV file PATH,LABEL, or a list PATH LABEL",
         FINETUNE, metavar="PATH"),
    Flag("ratio", "share of the clips that are trained on; the others validate (default: %(default)s)", FINETUNE, 0.8,
         float, "SHARE"),
    Flag("group_by", "clips of one group stay on one side: parent, the folder within the class's folder, or a regular "
         "expression that finds the group in the path", FINETUNE, metavar="GROUP"),
    Flag("full", "then train the whole network, at a tenth of the learning rate", FINETUNE, kind="switch"),
    Flag("full_epoch", "epochs of --full (default: %(default)s)", FINETUNE, 5, positive_int, "N"),
    Flag("overwrite", "start anew in a save_dir that holds another run", FINETUNE, kind="switch"),
    Flag("videos", "videos, folders, globs and list files (.list, .txt)", PREDICT, metavar="VIDEO", kind="words"),
    Flag("video_path", "what to classify, as VIDEO; repeatable", PREDICT, metavar="PATH", kind="list", setting="",
         note="a video, a folder, a glob or a list file"),
    Flag("filelist", "list of videos, labels optional", PREDICT, metavar="FILE", key="INFER.filelist", setting=""),
    Flag("output", "table of the predictions, .jsonl or .csv, written video by video, instead of predict_results.json",
         PREDICT, metavar="FILE", setting="", note="results.jsonl or results.csv, instead of predict_results.json"),
    Flag("resume", "go on with an existing --output", PREDICT, kind="switch"),
    Flag("overwrite", "replace an existing --output, --features or --render", PREDICT, kind="switch"),
    Flag("infer_topk", "classes per clip; default: MODEL.topk of the config", PREDICT, parse=positive_int, metavar="K",
         key="MODEL.topk", setting="", note="classes per clip"),
    Flag("explain", "write what each segment adds to the scores, and where in the picture that is", PREDICT,
         kind="switch"),
    Flag("features", "file of the videos' features, .npz or .parquet, instead of their classes: for search, clustering "
         "and few-shot work", PREDICT, metavar="FILE"),
    Flag("similar_to", "video to which the others, or those of a features file, are compared: the most similar ones, "
         "--infer_topk of them (default: 10), instead of classes", PREDICT, metavar="VIDEO"),
    Flag("timeline", "of long videos: score overlapping windows, say what happens when; files go to save_dir", PREDICT,
         kind="switch"),
    Flag("window", "seconds of a timeline's window (default: %(default)s)", PREDICT, 10.0, float, "SECONDS"),
    Flag("stride", "seconds from one window to the next (default: %(default)s)", PREDICT, 2.0, float, "SECONDS"),
    Flag("threshold", "probability at which an event begins (default: %(default)s)", PREDICT, 0.8, float, "P"),
    Flag("hold", "probability down to which an event goes on (default: %(default)s)", PREDICT, 0.5, float, "P"),
    Flag("shortest", "seconds of the shortest event of a timeline; default: half a window", PREDICT, parse=float,
         metavar="SECONDS"),
    Flag("render", "mp4: a copy of the video with its timeline written into the picture", PREDICT, metavar="FILE"),
    Flag("format", "paddle: for Paddle Inference; onnx: for ONNX Runtime and others; paddlex: for PaddleX "
         "(default: %(default)s)", INFERENCE, "paddle", metavar="paddle|onnx|paddlex"),
    Flag("uint8", "the model takes bytes, and normalises them itself", INFERENCE, kind="switch"),
    Flag("host", "address to listen at; one that other machines reach wants a token (default: 127.0.0.1)", SERVE,
         "127.0.0.1", metavar="ADDRESS", setting="", note="address to listen at; default: 127.0.0.1"),
    Flag("port", "port to listen at; 0: a free one (default: %(default)s)", SERVE, 8080, port_number, "PORT"),
    Flag("token", "what clients must send; better in the variable STNET_TOKEN, which no list of processes shows; "
         "default: none on 127.0.0.1, else a new one, which is printed", SERVE, parse=token_text, metavar="TOKEN"),
    Flag("allowed_hosts", "further name by which clients may call this server; repeatable", SERVE, metavar="NAME",
         kind="list"),
    Flag("root_path", "path prefix under which a reverse proxy serves this server, such as /stnet; default: none",
         SERVE, parse=path_prefix, metavar="PATH"),
    Flag("queue", "requests at once, waiting ones included (default: %(default)s)", SERVE, 16, positive_int, "N"),
    Flag("decoders", "processes that decode (default: %(default)s)", SERVE, 2, positive_int, "N"),
    Flag("batch_window", "seconds that a video waits for others to be computed with (default: %(default)s)", SERVE,
         0.01, float, "SECONDS"),
    Flag("max_bytes", "largest upload, in bytes (default: %(default)s)", SERVE, 256 << 20, positive_int, "N"),
    Flag("max_seconds", "longest video, in seconds (default: %(default)s)", SERVE, 3600.0, positive, "SECONDS"),
    Flag("max_frames", "longest video, in frames (default: %(default)s)", SERVE, 120_000, positive_int, "N"),
    Flag("max_pixels", "largest frame, in pixels (default: %(default)s)", SERVE, 4096*2304, positive_int, "N"),
    Flag("body_seconds", "time limit for an upload (default: %(default)s)", SERVE, 60.0, positive, "SECONDS"),
    Flag("request_seconds", "time limit for a request, its upload included (default: %(default)s)", SERVE, 120.0,
         positive, "SECONDS"),
    Flag("drain_seconds", "time limit for running requests after SIGTERM; default: body_seconds + request_seconds",
         SERVE, parse=positive, metavar="SECONDS"),
    Flag("log_json", "write the log as JSON, one object a line", SERVE, kind="switch"),
)  # fmt: skip


def flags_of(action: str) -> list[Flag]:
    """The flags of an action."""
    return [flag for flag in FLAGS if action in flag.actions]


def parse(action: str, description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line on top of run.sh's settings.

    Returns:
        a value for each flag by its name; `action`; and `typed`, the (name, value) of the command line, in order.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for flag in flags_of(action):
        _add(parser, flag, action)
    settings = runtime.settings()
    _check_settings(settings)
    set_there = [flag for flag in flags_of(action) if flag.setting is not None and settings.get(flag.name)]
    words = [f"--{flag.name}={settings[flag.name]}" for flag in set_there]
    args = parser.parse_args(words, argparse.Namespace(action=action, typed=[]))
    args.typed = []
    for flag in flags_of(action):
        if flag.kind == "words":
            delattr(args, flag.name)  # argparse wants to fill it itself
    return parser.parse_intermixed_args(argv, args)  # videos may stand between flags


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one line, which names the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with 2."""
        unknown = re.match(r"unrecognized arguments: (--\w+)", message)
        if unknown:
            near = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1)
            message += f"; did you mean {near[0]}?" if near else ""
        self.exit(2, f"error: {message}\n")


def _check_settings(settings: Iterable[str]) -> None:
    """Refuse a variable of run.sh, or warn of one of its environment, whose name is nearly that of a setting.

    Args:
        settings: names of the variables that are set at the top of run.sh.
    """
    known = [flag.name for flag in FLAGS if flag.setting is not None] + [*runtime.OWN_SETTINGS]
    for name in settings:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near and name not in known:
            raise UserError(f"run.sh sets {name}, which is no setting; did you mean {near[0]}?")
    for name in os.environ if runtime.typed() else ():
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near and name.islower() and name not in known:
            logger.warning("%s of the environment is no setting of run.sh; did you mean %s?", name, near[0])


def config_values(args: argparse.Namespace) -> dict[str, Any]:
    """SECTION.key -> value of the flags and settings that replace a key of the configuration."""
    flags = [flag for flag in flags_of(args.action) if flag.key]
    values = {flag.key_of(args.action): getattr(args, flag.name) for flag in flags}
    return {key: value for key, value in values.items() if value != ""}


def _add(parser: argparse.ArgumentParser, flag: Flag, action: str) -> None:
    if flag.kind == "switch":
        parser.add_argument(flag.typed, action="store_true", help=flag.help)
        return
    if flag.kind == "words":
        parser.add_argument(flag.typed, nargs="*", metavar=flag.metavar, help=flag.help)
        return
    default = [] if flag.kind == "list" else flag.default
    parser.add_argument(
        flag.typed,
        action=_Record,
        nargs=None if flag.alone is None else "?",
        const=flag.alone,
        default=default[action] if isinstance(default, Mapping) else default,
        type=_unless_empty(flag.parse),
        metavar=flag.metavar,
        help=flag.help,
    )


def _unless_empty(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        return parse(text) if text else ""

    parsed.__name__ = parse.__name__.replace("_", " ")  # argparse: invalid positive int value: 'x'
    return parsed


class _Record(argparse.Action):
    """Store a value, or append it to a list, and record it in `typed`; an empty one means "not given"."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values == "":
            return
        before = [value for name, value in namespace.typed if name == self.dest]
        namespace.typed.append((self.dest, values))
        if isinstance(self.default, list):
            setattr(namespace, self.dest, [*before, values])
            return
        if before and before[-1] != values:
            logger.warning("--%s is given twice: %s counts, not %s", self.dest, values, before[-1])
        setattr(namespace, self.dest, values)
