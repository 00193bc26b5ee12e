#!/usr/bin/env python
"""Classify videos: files, folders, globs and lists.

python predict.py a.mp4 'clips/*.mp4' --weights=checkpoints/STNET_final.pdparams
python predict.py --model_name=STNET --config=configs/stnet.yaml --video_path=clips --output=results.jsonl
python predict.py clips --weights=checkpoints/STNET_final.pdparams --features=features.npz
python predict.py long.mp4 --weights=checkpoints/STNET_final.pdparams --timeline --window=10 --stride=2
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stnet import cli, flags, next_step, runtime
from stnet.inference.output import Output, check_path
from stnet.utils.atomic import prepare_folder, write_json
from stnet.utils.errors import UserError
from stnet.utils.files import unique_stems
from stnet.utils.parsing import printable
from stnet.utils.schema import SCHEMA
from stnet.weights.metadata import load_saved_config

if TYPE_CHECKING:
    from stnet.config import Config
    from stnet.inference.features import Features
    from stnet.inference.predictor import Predictor
    from stnet.inference.result import Result
    from stnet.reader.loader import Loader
    from stnet.reader.sources import Source
    from stnet.timeline.events import Event

logger = logging.getLogger("stnet")
SOME_UNREAD = 3  # exit code


def main(argv: Sequence[str] | None = None) -> int:
    """Predict: configuration, device, videos, model, loop, results. Returns the exit code."""
    args = flags.parse("predict", __doc__, argv)
    check_together(args)
    config = load_saved_config(args)

    from stnet.backends.engines import ENGINES  # these need Paddle
    from stnet.export.deployed import is_deployed
    from stnet.inference import features
    from stnet.inference.predictor import Predictor
    from stnet.quantize.run import of_flags
    from stnet.reader.sources import loader_of

    ENGINES.get(args.engine)  # an unknown name is refused before anything is read
    if args.output:
        check_path(args.output, args.resume or args.overwrite)
    if args.features:
        features.check_path(args.features, args.overwrite)
    runtime.start(config.TRAIN.use_gpu)
    prepare_folder(args.save_dir)
    loader = None
    if is_deployed(args.weights):
        topk, precision = args.infer_topk or None, of_flags(args)
        predictor = Predictor(args.weights, None, args.engine, None, topk, precision=precision)
        videos = asked_for(args, predictor.config)
    else:
        if args.infer_topk and args.infer_topk > config.MODEL.num_classes:
            logger.warning("--infer_topk %d: there are %d classes", args.infer_topk, config.MODEL.num_classes)
        cli.save_config(args, config)
        videos = asked_for(args, config)
        if not (args.resume or args.timeline):
            loader = loader_of(config, videos)
            loader.start()  # videos are read while the model is made
        topk, precision = config.MODEL.topk, of_flags(args)
        predictor = Predictor(args.weights, config, args.engine, None, topk, clips=len(videos), precision=precision)
    if args.timeline:
        return write_timelines(args, predictor, videos)
    if args.features:
        return write_features(args, predictor, videos, loader or predictor.loader(videos))
    if args.output:
        with next_step.resumable(args, "--resume"):
            return predict_into_table(args, predictor, videos, loader)
    return predict_into_json(args, predictor, videos, loader or predictor.loader(videos))


def check_together(args: argparse.Namespace) -> None:
    """Raise UserError where a flag would be without effect."""
    typed = dict(args.typed)
    alone = [] if args.timeline else ["window", "stride", "threshold", "hold", "shortest", "render"]
    needs = dict.fromkeys((name for name in alone if name in typed), "timeline")
    if args.resume and not args.output:
        needs["resume"] = "output"
    if args.overwrite and not (args.output or args.features or args.render):
        needs["overwrite"] = "output, --features or --render"
    for name, needed in needs.items():
        raise UserError(f"--{name} is without effect unless --{needed} is given")
    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a table, --overwrite replaces it: set one of them")
    if args.timeline and (args.output or args.explain):
        raise UserError(
            f"--timeline writes files of its own: it cannot be combined with --{'output' if args.output else 'explain'}"
        )
    others = [name for name in ("explain", "features") if getattr(args, name)]
    if args.precision not in ("fp32", "auto") and others:
        raise UserError(f"--{others[0]} computes in fp32: leave out --precision")
    others = [name for name in ("output", "timeline", "explain") if getattr(args, name)]
    if args.features and others:
        raise UserError(f"--features writes a file of its own, without --{others[0]}")
    if args.features and "infer_topk" in typed:
        raise UserError("--features writes no classes: --infer_topk is without effect")


def asked_for(args: argparse.Namespace, config: Config) -> list[Source]:
    """Videos that the flags name, or else the configuration."""
    from stnet.reader.sources import listed, sources

    typed = "video_path" in dict(args.typed)  # and not in run.sh's settings alone
    paths = [path for path in (*args.videos, *(args.video_path if typed or not args.videos else ())) if path]
    if not paths and not args.filelist and config.INFER.video_path:
        paths = [config.INFER.video_path]
    videos = sources(paths, config.MODEL.format, scratch="")
    if args.filelist or not paths:
        videos += listed(args.filelist or config.INFER.filelist, config.MODEL.format)
    return videos


def predict_into_json(args: argparse.Namespace, predictor: Predictor, videos: Sequence[Source], loader: Loader) -> int:
    """Write predict_results.json at the end. Returns the exit code."""
    results = list(shown(args, predictor, videos, loader, names_of(args, videos)))
    loader.bad.log_total()
    unread = len(loader.bad.reasons)
    code = exit_code(videos, unread, results)  # where none was read, an earlier run's results stay
    path = os.path.join(args.save_dir, "predict_results.json")
    facts = {"skipped": loader.bad.summary(), "weights": predictor.weights}
    rows = [as_before(result) for result in results if not result.error]
    write_json(path, {"schema": SCHEMA, "results": rows, **facts})
    logger.info("results are in %s", path)
    return code


def predict_into_table(
    args: argparse.Namespace, predictor: Predictor, videos: Sequence[Source], loader: Loader | None
) -> int:
    """Append each result to --output. Returns the exit code."""
    facts = {"weights": predictor.weights, "sha256": predictor.digest, "config": predictor.config.scoring()}
    facts["labels"] = predictor.labels
    if predictor.proof:
        facts["precision"] = predictor.proof.plain()
    inputs = [(video.path or "", video.label, video.clip.path) for video in videos]
    with contextlib.closing(Output(args.output, inputs, facts, predictor.topk, args.resume, args.overwrite)) as output:
        if output.done:
            logger.info("%s holds %d of the %d videos: going on", args.output, output.done, len(videos))
        results: list[Result] = []
        unread, names = output.failed, names_of(args, videos)
        rest = [videos[number] for number in output.rest]
        if rest:
            loader = loader or predictor.loader(rest)
            for result in shown(args, predictor, rest, loader, [names[number] for number in output.rest]):
                output.add(result)
                results = results or [result]
            unread += len(loader.bad.reasons)
    logger.info("clips that could not be read: %d of %d", unread, len(videos))
    logger.info("results are in %s", args.output)
    return exit_code(videos, unread, results)


def names_of(args: argparse.Namespace, videos: Sequence[Source]) -> list[str]:
    """File names of each video's explanation; empty without --explain."""
    return unique_stems([video.path or "" for video in videos]) if args.explain else [""] * len(videos)


def shown(
    args: argparse.Namespace, predictor: Predictor, videos: Sequence[Source], loader: Loader, names: Sequence[str]
) -> Iterator[Result]:
    """Yield each result, its explanation written with --explain, and print it once it was taken."""
    if args.explain:
        predictor.parts()  # a model that cannot explain is refused first
    for name, result in zip(names, predictor.results(videos, loader, args.log_interval)):
        if args.explain and not result.error:
            explanation = result.explain()
            explanation.save_to_json(os.path.join(args.save_dir, f"{name}.why.json"))
            logger.info("reasons are in %s", explanation.save_to_img(os.path.join(args.save_dir, f"{name}.why.png")))
        yield result
        result.print()  # once its row is written


def write_timelines(args: argparse.Namespace, predictor: Predictor, videos: Sequence[Source]) -> int:
    """Write a timeline of each video into files, and print its events. Returns the exit code."""
    from stnet.inference.result import LONGEST_NAME
    from stnet.timeline.run import Settings, Unreadable

    if args.render and len(videos) > 1:
        raise UserError(
            f"one file cannot hold copies of {len(videos)} videos",
            "set --video_path to one file, or leave out --render",
        )
    settings = {name: getattr(args, name) for name in Settings._fields if getattr(args, name) != ""}
    labels = [printable(label, LONGEST_NAME) for label in predictor.labels]
    unread = 0
    for video, name in zip(videos, unique_stems([video.clip.path for video in videos])):
        try:
            events = predictor.timeline(video.clip.path, os.path.join(args.save_dir, name), **settings)
        except Unreadable as error:
            print(printable(str(video.path)), f"    {printable(error.reason)}", sep="\n", flush=True)
            logger.warning("skipped %s", error)
            unread += 1
            continue
        lines = [f"    {e.start:.2f} - {e.end:.2f} s, {labels[e.class_id]}, {e.probability:.6f}" for e in events]
        lines = lines or [f"    {no_event(args, events.highest, labels)}"]
        print(printable(str(video.path)), *lines, sep="\n", flush=True)
    if unread:
        logger.warning("%d of %d videos could not be read", unread, len(videos))
    logger.info("timelines are in %s%s", args.save_dir, f", the copy is {args.render}" if args.render else "")
    return exit_code(videos, unread)


def no_event(args: argparse.Namespace, highest: Event, labels: Sequence[str]) -> str:
    """Reason why a timeline has no event, on one line."""
    shortest = args.window / 2 if args.shortest == "" else args.shortest
    reached = highest.probability >= args.threshold
    why = f"nothing reaches {args.threshold:g}" + (f" for {shortest:g} s" if reached else "")
    when = f"{highest.start:.2f} - {highest.end:.2f} s"
    return f"{why}; the highest is {highest.probability:.6f}, {labels[highest.class_id]}, {when}"


def write_features(args: argparse.Namespace, predictor: Predictor, videos: Sequence[Source], loader: Loader) -> int:
    """Write the features of each video into one file. Returns the exit code."""
    from stnet.inference.features import Features, facts_of, save
    from stnet.weights.checkpoint import versions

    def facts() -> dict[str, str]:
        config = predictor.config.scoring()
        meta = {"schema": SCHEMA, "model": predictor.config.MODEL.name, "config": config}
        return facts_of(predictor.digest, **meta, versions=versions(), skipped=loader.bad.summary())

    save(args.features, predictor.features_of(videos, loader, args.log_interval), len(videos), facts)
    loader.bad.log_total()
    unread = [Features(videos[index].path, error=reason) for index, reason in sorted(loader.bad.reasons.items())]
    code = exit_code(videos, len(unread), unread)
    logger.info("features are in %s", args.features)
    return code


def exit_code(videos: Sequence[Source], unread: int, results: Sequence[Result | Features] = ()) -> int:
    """0 where all videos were read, else SOME_UNREAD. Raises UserError, which ends with 1, where none was."""
    if unread == len(videos):
        reason = f"; the first: {results[0].input_path}: {results[0].error}" if results else ""
        raise UserError(f"no clip could be read{reason}")
    return SOME_UNREAD if unread else 0


def as_before(result: Result) -> dict[str, object]:
    """Result in the form of predict_results.json."""
    rows = zip(result.class_ids, result.label_names, result.scores)
    predictions = [{"class": number, "label": name, "probability": score} for number, name, score in rows]
    label = {} if result.label is None else {"label": result.label}
    return {"path": result.input_path, **label, "predictions": predictions}


if __name__ == "__main__":
    sys.exit(cli.run(main))
