"""Shared by the entries: the configuration from their flags, and exit codes for errors."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from stnet import INSTALL, flags, runtime
from stnet.config import PACKAGE, Config, ModelSection, load_config, parse_override
from stnet.flags import positive_int as positive_int  # for the parsers of tools
from stnet.utils import signals, streams
from stnet.utils.atomic import write_text
from stnet.utils.errors import UserError, first_line
from stnet.utils.parsing import PrintableFormatter, printable
from stnet.utils.signals import Stopped, Terminated

logger = logging.getLogger("stnet")
_PACKAGES = {
    "paddle": "PaddlePaddle is not installed: pip install paddlepaddle, or paddlepaddle-gpu",
    **{name: f"{name} {INSTALL}" for name in ("av", "cv2", "jinja2", "matplotlib", "numpy", "PIL", "tqdm")},
}
_plugins: set[str] = set()  # real paths of those that were run


def load_plugin(path: str) -> None:
    """Run a Python file, once, so that it registers its classes. Raises UserError if it is missing or fails."""
    if os.path.realpath(path) in _plugins:
        return
    name = f"plugin_{os.path.splitext(os.path.basename(path))[0]}"  # shadows no other module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise UserError(f"plugin {path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its classes can be pickled
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        fact = f"plugin {path} fails: {type(error).__name__}: {first_line(error)}"
        raise UserError(fact, "--debug shows where") from error
    _plugins.add(os.path.realpath(path))


def load_run_config(
    args: argparse.Namespace,
    model_section: Callable[[str], type[ModelSection]],
    settings: Mapping[str, Any] | None = None,
) -> Config:
    """Load the configuration with settings, flags and -o applied; --debug shows it.

    From here until stnet.runtime.start, while Paddle is imported, Ctrl-C ends the process at once.

    Args:
        args: of stnet.flags.parse.
        model_section: see stnet.config.load_config.
        settings: used instead of the file args.config.
    """
    signals.exit_on_interrupt()
    for path in args.plugin:
        load_plugin(path)
    runtime.set_weights_source(args.weights_home, args.weights_url)
    config = load_config(settings or args.config, model_section, values=_values(args))
    for note in config.notes:
        logger.warning("config: %s", note)
    if args.debug:
        logger.info("configuration:\n" + _as_yaml(config))
    return config


def _values(args: argparse.Namespace) -> dict[str, object]:
    """SECTION.key -> value of settings, flags and -o: the last one typed, with a warning if several differ."""
    keys = {flag.name: flag.key_of(args.action) for flag in flags.flags_of(args.action) if flag.key}
    typed: dict[str, tuple[str, object]] = {}
    for name, given in args.typed:
        key, value = parse_override(given) if name == "o" else (keys.get(name, ""), given)
        word = "-o" if name == "o" else f"--{name}"
        before, old = typed.get(key, ("", value))
        if key and old != value and before != f"--{name}":  # stnet.flags warns of a flag typed twice
            logger.warning("%s is given twice: %s of %s counts, not %s of %s", key, value, word, old, before)
        typed[key] = word, value
    typed.pop("", None)  # flags without a key
    return {**flags.config_values(args), **{key: value for key, (_, value) in typed.items()}}


def save_config(args: argparse.Namespace, config: Config) -> None:
    """Write the resolved configuration to ACTION_config.yaml in save_dir, for --config."""
    write_text(os.path.join(args.save_dir, f"{args.action}_config.yaml"), _as_yaml(config))


def _as_yaml(config: Config) -> str:
    return yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True)


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run an entry's main(argv) and turn errors into messages and exit codes. The log goes to standard error.

    Returns the exit code of main, or 0; 1 after a user error (one line, no traceback); 143, 130 or 129 after SIGTERM,
    Ctrl-C or SIGHUP. Bugs raise, with their traceback.
    """
    streams.prepare()
    try:
        _start_logging()
        runtime.prepare()
        code = main(argv) or 0
        if streams.lost():
            raise UserError(f"cannot write to standard output: {streams.lost()}")
        return code
    except UserError as error:
        if "--debug" in (sys.argv[1:] if argv is None else argv):
            traceback.print_exc()
        print(f"error: {printable(advised(error))}", file=sys.stderr, flush=True)
        return 1
    except Stopped as error:
        print(error, file=sys.stderr, flush=True)
        return error.code
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        print(f"error: {_PACKAGES[error.name]}", file=sys.stderr)
        return 1
    except Terminated:
        print("stopped by SIGTERM", file=sys.stderr, flush=True)
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    finally:
        signals.leave()


def advised(error: UserError) -> str:
    """The error's message and its hint, which does not name run.sh where there is none, as in a wheel."""
    hint = error.hint
    if not os.path.exists(os.path.join(os.path.dirname(PACKAGE), "run.sh")):
        hint = re.sub(r"bash run\.sh setup \w+, or ", "", hint).replace("python eval.py ", "stnet eval ")
        hint = re.sub(
            r"bash run\.sh data (.*), see data/dataset/README\.md", r"stnet data \1, see stnet data --help", hint
        )
    return f"{error}; {hint}" if hint else str(error)


def _start_logging() -> None:
    form = "[%(levelname)s %(asctime)s] %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter(form, "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns while it builds its font cache
    logger.setLevel(logging.INFO)  # importing Paddle 2.6 raises the root logger's level
