"""Parts pipeline, startup and scaling: evaluation and training as they run, and what of them runs alone."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import spec as forms
from bench.clips import write_list
from bench.contender import ROOT, Prepare, Run, finish, program
from bench.part import Part, Timed
from bench.spec import CONFIG, WEIGHTS, Spec

if TYPE_CHECKING:
    from stnet.reader.loader import Batch

EVALUATION = "evaluation"


def pipeline(part: Part) -> None:
    """Evaluation, from when it is going, against what decoding and the network take; the memory of predict.py."""
    specs = [Spec(18, 3, 48, batch=4)] if part.quick else [Spec(50, 7, 224, batch=4), Spec(50, 25, 256, batch=4)]
    count, drawn, frames = (24, 4, 60) if part.quick else (400, 8, 300)
    part.description = f"{count} clips ({drawn} different ones), {specs[0].layers} layers, batch 4, all cores"
    paths = part.draw_clips(drawn, (340, 256), frames)
    filelist = write_list(f"{part.folder}/all.list", paths, count)
    for spec in specs:
        part.call(forms.write_weights, spec)
        overrides = spec.overrides(TEST_filelist=filelist, TEST_num_reader_threads=part.threads)
        contenders: dict[str, Prepare] = {EVALUATION: partial(evaluation, overrides)}
        contenders |= {"decoding alone": partial(reading, overrides, "test"), "network alone": partial(computing, spec)}
        timed = part.time(contenders, rounds=min(3, part.rounds), warm=0)  # each takes minutes
        timed = {name: one.per(one.result["clips"]) for name, one in timed.items()}
        part.add(f"a clip, {spec.text}", timed, base=EVALUATION)
        if len(timed) == len(contenders):
            _compare_whole(part, spec.text, *timed.values())
    with part.going_on("memory of predict.py"):
        workers = {"INFER_num_reader_threads": part.threads}
        largest, together = part.call(memory, specs[-1].overrides(**workers), paths[0])
        part.notes.append(f"predict.py with its reading processes: {together:.2f} GB, pages they share counted once")
        part.aim("predict.py, one clip, main process", largest, 1.5, unit=" GB")


def _compare_whole(part: Part, text: str, whole: Timed, decoding: Timed, network: Timed) -> None:
    seconds = 1 / whole.result["rate"]  # a clip, once all is going
    least = (median(decoding.cpu) + median(network.cpu)) / part.threads
    part.notes.append(f"{text}: {seconds:.4f} s a clip without the start, at best {least:.4f}")
    part.aim(f"{text}: evaluation / what decoding and the network alone keep the cores busy", seconds / least, 1.08)


def entry(name: str, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start an entry of the project."""
    command = [str(ROOT / name), f"--config={CONFIG}", f"--weights={WEIGHTS}", "--use_gpu=False", "--save_dir=results"]
    home = {"STNET_WEIGHTS_HOME": os.getcwd(), "STNET_WEIGHTS_URL": "none"}
    return program(*command, *(f"-o{text}" for text in overrides), **home)


def evaluation(overrides: list[str]) -> Run:
    """Contender: eval's loop; gives clips and, after the start, clips a second."""
    config = forms.load_config(overrides)
    from stnet.evaluation.loop import scored
    from stnet.inference.predictor import Predictor
    from stnet.reader.loader import build_loader

    engine = Predictor(WEIGHTS, config, device="cpu", mode="test").engine

    def run() -> dict[str, float]:
        loader = build_loader(config, "test")
        with contextlib.closing(scored(engine, loader, "eval", 1000)) as batches:
            return going(config.TEST.num_reader_threads, (batch for batch, _ in batches))

    return run


def going(workers: int, batches: Iterable[Batch]) -> dict[str, float]:
    """How many clips there are, and how many a second once every worker is at work."""
    counts, moments = zip(*((len(batch.indices), time.perf_counter()) for batch in batches))
    warm = min(2 * workers, len(counts) - 2)
    return {"clips": sum(counts), "rate": sum(counts[warm + 1 :]) / (moments[-1] - moments[warm])}


def reading(overrides: list[str], mode: str) -> Run:
    """Contender: what an entry reads, by its own loader; gives clips and, after the start, clips a second."""
    config = forms.load_config(overrides)
    from stnet.reader.loader import build_loader

    def run() -> dict[str, float]:
        with contextlib.closing(build_loader(config, mode).epoch()) as batches:
            return going(config.section(mode).num_reader_threads, batches)

    return run


def computing(spec: Spec) -> Run:
    """Contender: eval's engine on clips that are there; gives how many."""
    engine, clips, times = forms.load_engine(spec), spec.clips(), 10
    engine(clips)

    def run() -> dict[str, int]:
        for _ in range(times):
            engine(clips)
        return {"clips": times * spec.batch}

    return run


def memory(overrides: Sequence[str], video: str) -> tuple[float, float]:
    """(GB of the largest process, of all together) that predict.py takes at most for one video."""
    process, together = entry("predict.py", [*overrides, f"INFER.video_path={video}"]), 0
    while process.poll() is None:
        together = max(together, _session_memory())
        time.sleep(0.05)
    finish(process)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, together / 1e9


def _session_memory() -> int:
    """Bytes of the processes that this contender started, a page that several share counted in parts."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/smaps_rollup"):
        with contextlib.suppress(OSError):
            if os.getsid(int(path.parent.name)) == os.getpid() != int(path.parent.name):
                total += sum(map(int, re.findall(r"^Pss: +(\d+)", path.read_text(), re.MULTILINE))) * 1024
    return total


def startup(part: Part) -> None:
    """How long a program takes to say how it is used."""
    part.description = "wall time of whole programs"
    entry_help, paddle, python = "predict.py --help", "python -c 'import paddle'", "python -c pass"
    commands = {
        entry_help: [str(ROOT / "predict.py"), "--help"],
        paddle: ["-c", "import paddle"],
        python: ["-c", "pass"],
    }
    timed = part.time({name: partial(running, *command) for name, command in commands.items()})
    part.add("one program", timed)
    if entry_help in timed:
        part.aim(entry_help, median(timed[entry_help].seconds), 0.5, unit=" s")


def running(*arguments: str) -> Run:
    """Contender: Python with these arguments."""
    return lambda: finish(program(*arguments))


def scaling(part: Part) -> None:
    """Clips a second with more reading processes, and training on more ranks of one thread each, up to all cores.

    It wants the machine for itself, and as many cores as it is to say anything about.
    """
    part.description = "seconds a clip; ranks compute with one thread each"
    spec, frames, drawn = (Spec(18, 3, 48), 60, 4) if part.quick else (Spec(18, 7, 224), 300, 16)
    paths = part.draw_clips(drawn, (340, 256), frames)
    for action, contender, most in (("reading", workers, 16), ("training", ranks, 8)):
        counts = [count for count in (1, 2, 4, 8, 16) if count <= min(part.threads, most)]
        names = {f"{action} with {count} {contender.__name__}": count for count in counts}
        timed = part.time({name: partial(contender, spec, paths, names[name], part.quick) for name in names}, warm=0)
        part.add(action, {name: one.per(one.result["clips"]) for name, one in timed.items()})
        rates = {names[name]: one.result["rate"] for name, one in timed.items()}  # by a clock of its own
        shares = {count: rate / (count * rates[1]) for count, rate in rates.items() if 1 in rates}
        for count, share in shares.items():
            text = f"{rates[count]:.2f} clips a second, efficiency {share:.2f}"
            part.notes.append(f"{action}: {count} processes, {text}")
        if 8 in shares:
            part.aim(f"{action}: efficiency at 8", shares[8], 0.8, least=True)


def workers(spec: Spec, paths: list[str], count: int, quick: bool) -> Run:
    """Contender: an epoch of the training loader with so many workers."""
    filelist = write_list(f"workers{count}.list", paths, (8 if quick else 96) * count)
    values = {"TRAIN_filelist": filelist, "TRAIN_num_reader_threads": count, "TRAIN_epoch": 1}
    return reading(spec._replace(batch=4).overrides(**values), "train")


def ranks(spec: Spec, paths: list[str], count: int, quick: bool) -> Run:
    """Contender: a short training on so many CPU ranks, each with a batch of its own; the rate is the journal's."""
    from stnet.training.log import read_journal

    batch, out = 2 * count, f"ranks{count}"
    clips = batch * (3 if quick else 12)
    overrides = spec._replace(size=min(spec.size, 112), batch=batch).overrides(
        TRAIN_filelist=write_list(f"{out}.list", paths, clips), TRAIN_num_reader_threads=1, TRAIN_epoch=1
    )
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(count), "--log_dir", f"{out}/log"]
    command = [*(launch if count > 1 else []), str(ROOT / "train.py"), f"--config={CONFIG}", f"--save_dir={out}"]
    command += ["--use_gpu=False", "--pretrain=none", "--valid_interval=0", "--log_interval=1", "--overwrite"]

    def run() -> dict[str, float]:
        finish(program(*command, *(f"-o{text}" for text in overrides), STNET_THREADS="1"))
        rows = [row["clips_per_s"] for row in read_journal(f"{out}/train_log.jsonl") if row["kind"] == "train"]
        return {"clips": clips, "rate": median(rows[1:])}

    return run
