#!/usr/bin/env python
"""Fine-tune on your own videos in one command: lists, check, training on features, evaluation.

python finetune.py --videos=clips
python finetune.py --videos=clips.csv --group_by='_(g[0-9]+)_' --save_dir=finetune --full

The same command goes on with a run that was interrupted.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stnet import cli, flags, next_step
from stnet.config import Config
from stnet.models import model_section
from stnet.utils.atomic import exclusive_lock, os_errors_as_user_errors, prepare_folder, write_atomically, write_json
from stnet.utils.errors import UserError
from stnet.utils.files import read_regular
from stnet.utils.parsing import parse_json
from stnet.utils.progress import hours

if TYPE_CHECKING:
    from stnet.report.data import DataSection

logger = logging.getLogger("stnet")
_RATE_OF_ALL = 0.1  # of the learning rate, with --full, of the whole network


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune: lists, check, head on features, evaluation; with --full the whole network after it."""
    args = flags.parse("finetune", __doc__, argv)
    config = cli.load_run_config(args, model_section)
    began, folder = time.monotonic(), args.save_dir
    data, features, whole = (os.path.join(folder, name) for name in ("data", "features", "full"))
    prepare_folder(data)
    with exclusive_lock(data), next_step.resumable(args):
        if args.overwrite:
            remove_earlier(data, features)
        if args.videos:
            make_lists(args, data)
            config = with_lists(config, data)
        elif not config.TRAIN.filelist or not config.VALID.filelist:
            raise UserError("no videos are given", "set --videos to a folder with one sub-folder a class")
        saved = os.path.join(folder, "finetune_config.yaml")
        cli.save_config(args, config)
        if args.videos:
            check_lists(saved, data)
            config = with_lists(config, data, clean=True)
            cli.save_config(args, config)

        from stnet.training.data_report import data_report  # needs Paddle

        logger.info("== training the layers behind the backbone")
        on_features = config.TRAIN.freeze == "backbone"
        cached = replace(config.TRAIN, feature_cache=features if on_features else "")
        weights = train_stage(args, replace(config, TRAIN=cached), folder)
        about_data = data_report(config, weights, features) if on_features else None
        scores = evaluate_stage(args, config, weights, os.path.join(folder, "results"), about_data)
        if args.full:
            logger.info("== training the whole network")
            rate = config.TRAIN.learning_rate * _RATE_OF_ALL
            of_all = replace(config.TRAIN, freeze="none", augmented_views=0, pretrain=weights, learning_rate=rate)
            config = replace(config, TRAIN=replace(of_all, epoch=args.full_epoch))
            weights = train_stage(args, config, whole)
            scores = evaluate_stage(args, config, weights, os.path.join(whole, "results"))
    logger.info("fine-tuned in %s: %s", hours(time.monotonic() - began), weights)
    print(scores, flush=True)
    args.config, args.typed = saved, [pair for pair in args.typed if pair[0] != "config"]  # saved with the weights
    next_step.suggest(args, "predict", f"--weights={weights}", "--video_path=a.mp4")


def remove_earlier(*folders: str) -> None:
    """Remove an earlier run's lists and features."""
    for folder in folders:
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            with os_errors_as_user_errors(path):
                if os.path.isdir(path):
                    shutil.rmtree(path)
                elif name != ".training.lock":
                    os.remove(path)


# Lists ----------------------------------------------------------------------------------------------------------------


def make_lists(args: argparse.Namespace, data: str) -> None:
    """Divide the videos into training and validation clips, once: later runs keep the division.

    Raises:
        UserError: no usable clip, or the lists there were made with other settings.
    """
    from stnet.tools.dataset.__main__ import main as dataset

    settings: dict[str, Any] = {"videos": os.path.abspath(args.videos), "ratio": args.ratio, "group_by": args.group_by}
    record = os.path.join(data, "made_from.json")
    if os.path.exists(record):
        before = parse_json(read_regular(record, 1 << 20))
        differing = [f"--{name}={before.get(name)}" for name in settings if before.get(name) != settings[name]]
        if differing:
            raise UserError(
                f"{data} holds lists that were made with {' '.join(differing)}",
                "set --overwrite to make them anew, or --save_dir to another folder",
            )
        logger.info("lists: those in %s", data)
        return
    source = ["--videos", args.videos]
    if not os.path.isdir(args.videos):
        source = ["--csv", as_csv(args.videos, data)]
    group = [f"--group_by={args.group_by}"] if args.group_by else []
    dataset(["folder", *source, "--out", data, f"--ratio={args.ratio}", *group])
    write_json(record, settings)


def as_csv(path: str, data: str) -> str:
    """Path of a CSV file of a data set: the file itself, or one made of a list with lines PATH LABEL."""
    from stnet.reader.lists import list_folder, read_list
    from stnet.utils.files import find_file

    if not path.lower().endswith((".list", ".txt")):
        return path
    rows = [(os.path.abspath(find_file(clip.path, list_folder(path))), clip.label) for clip in read_list(path)]

    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file).writerows(rows)

    target = os.path.join(data, "listed.csv")
    write_atomically(target, write)
    return target


def with_lists(config: Config, data: str, clean: bool = False) -> Config:
    """Configuration with a folder's lists and class names; `clean`: without the clips that `check` names."""
    labels = os.path.join(data, "labels.json")
    classes = len(parse_json(read_regular(labels, 1 << 26)))
    suffix = "clean.list" if clean else "list"
    train, valid = (os.path.join(data, f"{name}.{suffix}") for name in ("train", "val"))
    return replace(
        config,
        MODEL=replace(config.MODEL, num_classes=classes, labels=labels, topk=min(config.MODEL.topk, classes)),
        TRAIN=replace(config.TRAIN, filelist=train),
        VALID=replace(config.VALID, filelist=valid),
        TEST=replace(config.TEST, filelist=valid),
        INFER=replace(config.INFER, filelist=os.path.join(data, "infer.list")),
    )


def check_lists(config: str, data: str) -> None:
    """Decode every clip of both lists, and write lists without those that are broken, double or leaked."""
    from stnet.tools.dataset.__main__ import main as dataset

    for name, mode in (("train", "train"), ("val", "valid")):
        against = ["--against", os.path.join(data, "train.list")] if name == "val" else []
        dataset(["check", "--list", os.path.join(data, f"{name}.list"), "--config", config, "--mode", mode, *against])


# Training and evaluation ----------------------------------------------------------------------------------------------


def train_stage(args: argparse.Namespace, config: Config, folder: str) -> str:
    """Train into a folder, or go on with the run that is there. Returns the path of the best weights."""
    from stnet.train import train  # needs Paddle

    how = "--overwrite" if args.overwrite else "--resume=auto"
    words = [
        f"--save_dir={folder}",
        how,
        "--fix_random_seed=True",
        "--valid_interval=1",
        f"--log_interval={args.log_interval}",
    ]
    train(flags.parse("train", None, words), config)
    return os.path.join(folder, f"{config.MODEL.name.upper()}_best.pdparams")


def evaluate_stage(
    args: argparse.Namespace, config: Config, weights: str, folder: str, data: DataSection | None = None
) -> str:
    """Evaluate weights on the validation clips, with a report. Returns the scores as text."""
    from stnet.eval import evaluate_weights  # needs Paddle

    words = [f"--save_dir={folder}", f"--weights={weights}", f"--log_interval={args.log_interval}", "--reject=0.95"]
    return evaluate_weights(flags.parse("eval", None, words), config, data) or ""


if __name__ == "__main__":
    sys.exit(cli.run(main))
