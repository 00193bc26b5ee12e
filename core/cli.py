"""What the entries share: their common flags, and how errors end a program."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar, Union

from core import runtime
from core.advice import advised
from core.config import Config, ModelSection, load_config
from core.errors import UserError
from core.signals import Stopped

Value = TypeVar("Value")
Device = Union[bool, Literal["auto"]]

logger = logging.getLogger("stnet")


def parser(description: str | None) -> argparse.ArgumentParser:
    """ArgumentParser with the flags that every entry has."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--model_name", default="", metavar="NAME", help="model; default: MODEL.name of the config")
    flags.add_argument(
        "--config", default="configs/stnet.yaml", metavar="FILE", help="YAML file (default: %(default)s)"
    )
    flags.add_argument(
        "-o",
        dest="override",
        action="append",
        default=[],
        metavar="SECTION.key=value",
        help="override one value of the config; repeatable",
    )
    flags.add_argument("--batch_size", type=optional(positive_int), metavar="N", help="clips a step, over all cards")
    flags.add_argument(
        "--use_gpu",
        type=optional(device_choice),
        metavar="True|False|auto",
        help="auto: the GPU if one works; default: TRAIN.use_gpu of the config",
    )
    flags.add_argument(
        "--weights_home", default="", metavar="DIR", help="cache of released weights (default: ~/.paddle/weights)"
    )
    flags.add_argument(
        "--weights_url", default="", metavar="URL", help="mirror of the released weights; none: never download"
    )
    flags.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that registers a model, clip format, engine or metric of your own; repeatable",
    )
    flags.add_argument("--debug", action="store_true", help="show the traceback of a user error, too")
    return flags


def add_run_flags(flags: argparse.ArgumentParser, save_dir: str) -> None:
    """--save_dir and --log_interval."""
    flags.add_argument("--save_dir", default=save_dir, metavar="DIR", help="where files go (default: %(default)s)")
    flags.add_argument(
        "--log_interval",
        type=optional(positive_int),
        default=10,
        metavar="N",
        help="steps between log lines (default: %(default)s)",
    )


def add_engine_flag(flags: argparse.ArgumentParser) -> None:
    """--engine."""
    flags.add_argument(
        "--engine",
        type=optional(str),
        default="auto",
        metavar="auto|paddle|inference|onnxruntime",
        help="what computes the logits; auto: the fastest that works here; paddle: the network as it is; "
        "or one that a plugin registers",
    )


def optional(convert: Callable[[str], Value]) -> Callable[[str], Value | None]:
    """An argparse type that takes an empty value as not given, as an empty variable in run.sh means."""

    def converted(text: str) -> Value | None:
        return None if text == "" else convert(text)

    converted.__name__ = getattr(convert, "__name__", "value").replace("_", " ")
    return converted


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def boolean(text: str) -> bool:
    """True or False, in any case."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, found {text!r}") from None


def device_choice(text: str) -> Device:
    """True, False or auto."""
    return "auto" if text.lower() == "auto" else boolean(text)


def load_plugin(path: str) -> None:
    """Run a Python file, which registers what it brings. Raises UserError if there is none."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise UserError(f"plugin {path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # what it defines can be pickled
    spec.loader.exec_module(module)


def load_run_config(
    args: argparse.Namespace,
    model_section: Callable[[str], type[ModelSection]],
    batch_section: str,
    extra_overrides: Iterable[str] = (),
) -> Config:
    """The configuration with the flags applied; logs what it resolves to.

    Args:
        model_section: see core.config.load_config.
        batch_section: where --batch_size goes.
    """
    for path in args.plugin:
        load_plugin(path)
    runtime.set_weights_source(args.weights_home, args.weights_url)
    overrides = list(extra_overrides)
    if args.batch_size is not None:
        overrides.append(f"{batch_section}.batch_size={args.batch_size}")
    config = load_config(args.config, model_section, [*overrides, *args.override], args.model_name)
    for note in config.notes:
        logger.warning("config: %s", note)
    if args.use_gpu is None:
        args.use_gpu = config.TRAIN.use_gpu
    for name, section in config.as_dict().items():
        logger.info("config %s: %s", name, ", ".join(f"{k}={v}" for k, v in section.items()))
    return config


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run an entry's main(argv) and turn errors into messages and exit codes.

    Returns the exit code: what main returns, or 0; 1 after a user error (one line, no traceback); 143, 130 or 129
    after SIGTERM, Ctrl-C or SIGHUP. Bugs pass through, with their traceback.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="[%(levelname)s %(asctime)s] %(message)s", datefmt="%H:%M:%S"
    )
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)  # importing Paddle 2.6 raises the root logger's level
    runtime.prepare()
    try:
        return main(argv) or 0
    except UserError as error:
        if "--debug" in (sys.argv[1:] if argv is None else argv):
            traceback.print_exc()
        print(f"error: {advised(error)}", file=sys.stderr, flush=True)
        return 1
    except Stopped as error:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(error, file=sys.stderr, flush=True)
        return error.code
    except (RuntimeError, SystemError) as error:
        if "DataLoader process" not in str(error):
            raise
        reason = str(error).strip().splitlines()[-1]
        print(f"error: a reading process was killed, perhaps for lack of memory: {reason}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
