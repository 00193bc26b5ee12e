"""What the entries share: their common flags, and how errors end a program."""

import argparse
import contextlib
import logging
import sys
import traceback

from core import runtime
from core.config import load_config
from core.errors import UserError
from core.signals import Stopped

logger = logging.getLogger("stnet")
ENGINES = ("auto", "paddle", "inference", "onnxruntime")


def parser(description):
    """ArgumentParser with the flags that every entry has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model_name", default="", metavar="NAME", help="model; default: MODEL.name of the config")
    made.add_argument("--config", default="configs/stnet.yaml", metavar="FILE", help="YAML file (default: %(default)s)")
    made.add_argument(
        "-o",
        dest="override",
        action="append",
        default=[],
        metavar="SECTION.key=value",
        help="override one value of the config; repeatable",
    )
    made.add_argument("--batch_size", type=optional(positive_int), metavar="N", help="clips a step, over all cards")
    made.add_argument(
        "--use_gpu",
        type=optional(device_choice),
        metavar="True|False|auto",
        help="auto: the GPU if one works; default: TRAIN.use_gpu of the config",
    )
    made.add_argument(
        "--weights_home", default="", metavar="DIR", help="cache of released weights (default: ~/.paddle/weights)"
    )
    made.add_argument(
        "--weights_url", default="", metavar="URL", help="mirror of the released weights; none: never download"
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of a user error, too")
    return made


def add_run_flags(made, save_dir):
    """--save_dir and --log_interval."""
    made.add_argument("--save_dir", default=save_dir, metavar="DIR", help="where files go (default: %(default)s)")
    made.add_argument(
        "--log_interval",
        type=optional(positive_int),
        default=10,
        metavar="N",
        help="steps between log lines (default: %(default)s)",
    )


def add_engine_flag(made):
    """--engine."""
    made.add_argument(
        "--engine",
        type=optional(str),
        choices=(None, *ENGINES),
        default="auto",
        metavar="|".join(ENGINES),
        help="what computes the logits; auto: the fastest that works here; paddle: the network as it is",
    )


def optional(convert):
    """An argparse type that takes an empty value as not given, as an empty variable in run.sh means."""

    def converted(text):
        return None if text == "" else convert(text)

    converted.__name__ = getattr(convert, "__name__", "value").replace("_", " ")
    return converted


def positive_int(text):
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {value}")
    return value


def boolean(text):
    """True or False, in any case."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, found {text!r}") from None


def device_choice(text):
    """True, False or auto."""
    return "auto" if text.lower() == "auto" else boolean(text)


def load_run_config(args, model_section, batch_section, extra_overrides=()):
    """The configuration with the flags applied; logs what it resolves to.

    Args:
        model_section: see core.config.load_config.
        batch_section: where --batch_size goes.
    """
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


def run(main, argv=None):
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
        print(f"error: {error}", file=sys.stderr, flush=True)
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
