"""The outputs of predict: predict_results.json, a table, timelines, features, similar videos.

Each function writes one and returns the exit code. `args` are the flags of predict.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

from stnet.config import Config
from stnet.inference.features import Features, facts_of, features_of, save
from stnet.inference.predictor import Predictor
from stnet.inference.result import LONGEST_NAME, Result
from stnet.inference.similar import TOPK, features_among, ranked, read_known, to_compare
from stnet.inference.table import ResultTable
from stnet.reader.loader import Loader
from stnet.reader.sources import Source, listed, sources
from stnet.timeline.events import Event
from stnet.timeline.run import Settings, Unreadable
from stnet.utils.atomic import write_json
from stnet.utils.errors import UserError
from stnet.utils.files import unique_stems
from stnet.utils.parsing import printable
from stnet.utils.schema import SCHEMA
from stnet.weights.checkpoint import versions

logger = logging.getLogger("stnet")
SOME_UNREAD = 3  # exit code


def asked_for(args: argparse.Namespace, config: Config) -> list[Source]:
    """Videos that the flags name, or else the configuration."""
    paths = named(args, config)
    if args.similar_to and features_among([*paths, *filter(None, [args.filelist])]):
        return to_compare(sources(args.similar_to, config.MODEL.format, scratch=""), [])
    videos = sources(paths, config.MODEL.format, scratch="")
    filelist = args.filelist
    if not paths and not filelist:
        filelist = config.INFER.filelist
        if not os.path.exists(filelist):
            raise UserError(f"no video is given, and INFER.filelist {filelist} does not exist", "name videos: a.mp4")
        logger.info("no video is given: taking INFER.filelist %s", filelist)
    if filelist:
        videos += listed(filelist, config.MODEL.format)
    if args.similar_to:
        videos = to_compare(sources(args.similar_to, config.MODEL.format, scratch=""), videos)
    return videos


def named(args: argparse.Namespace, config: Config) -> list[str]:
    """Paths that the flags name, or else the configuration; none where a list is given."""
    typed = "video_path" in dict(args.typed)  # and not in run.sh's settings alone
    paths = [path for path in (*args.videos, *(args.video_path if typed or not args.videos else ())) if path]
    if not paths and not args.filelist and config.INFER.video_path:
        return [config.INFER.video_path]
    return paths


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
    if predictor.report:
        facts["precision"] = predictor.report.to_dict()
    if predictor.rejection:
        facts["reject"] = predictor.rejection._asdict()
    inputs = [(video.path or "", video.label, video.clip.path) for video in videos]
    table = ResultTable(args.output, inputs, facts, predictor.topk, args.resume, args.overwrite)
    with contextlib.closing(table):
        if table.done:
            logger.info("%s holds %d of the %d videos: going on", args.output, table.done, len(videos))
        results: list[Result] = []
        unread, names = table.failed, names_of(args, videos)
        rest = [videos[number] for number in table.rest]
        if rest:
            loader = loader or predictor.loader(rest)
            for result in shown(args, predictor, rest, loader, [names[number] for number in table.rest]):
                table.add(result)
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
        _ = predictor.engines.stages  # a model that cannot explain is refused first
    for name, result in zip(names, predictor.results(videos, loader, args.log_interval)):
        if args.explain and not result.error:
            explanation = result.explain()
            explanation.save_to_json(os.path.join(args.save_dir, f"{name}.why.json"))
            logger.info("reasons are in %s", explanation.save_to_img(os.path.join(args.save_dir, f"{name}.why.png")))
        yield result
        result.print()  # once its row is written


def write_timelines(args: argparse.Namespace, predictor: Predictor, videos: Sequence[Source]) -> int:
    """Write a timeline of each video into files, and print its events. Returns the exit code."""
    if args.render and len(videos) > 1:
        raise UserError(
            f"one file cannot hold copies of {len(videos)} videos",
            "set --video_path to one file, or leave out --render",
        )
    spans = [video.path for video in videos if video.clip.span]
    if spans:
        raise UserError(f"{spans[0]}: a timeline is of a whole video", "leave START and END out of the list")
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
        lines += [f"    {events.note}"] if events.note else []
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

    def facts() -> dict[str, str]:
        config = predictor.config.scoring()
        meta = {"schema": SCHEMA, "model": predictor.config.MODEL.name, "config": config}
        return facts_of(predictor.digest, **meta, versions=versions(), skipped=loader.bad.summary())

    rows = features_of(predictor.engines.embed, videos, loader, args.log_interval)
    save(args.features, rows, len(videos), facts)
    loader.bad.log_total()
    unread = [Features(videos[index].path, error=reason) for index, reason in sorted(loader.bad.reasons.items())]
    code = exit_code(videos, len(unread), unread)
    logger.info("features are in %s", args.features)
    return code


def write_similar(args: argparse.Namespace, predictor: Predictor, videos: Sequence[Source], loader: Loader) -> int:
    """Print the videos that are most similar to the first one, and write similar.json. Returns the exit code."""
    path = features_among(named(args, predictor.config))
    known = read_known(path, predictor.digest, predictor.config) if path else None
    rows = features_of(predictor.engines.embed, videos, loader, args.log_interval)
    found = ranked(rows, args.infer_topk or TOPK, known)
    loader.bad.log_total()
    for similar in found:
        print(similar, flush=True)
    path = os.path.join(args.save_dir, "similar.json")
    facts = {"skipped": loader.bad.summary(), "weights": predictor.weights}
    content = {"schema": SCHEMA, "query": args.similar_to, "rows": [similar.json for similar in found], **facts}
    write_json(path, content)
    logger.info("similar videos are in %s", path)
    return SOME_UNREAD if loader.bad.reasons else 0


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
    return {"path": result.input_path, **label, "predictions": predictions, **result.reject_facts}
