"""Clips a second with more and more reading processes, and training on more and more ranks of one thread each.

Not among the parts that run by themselves: it wants the machine for itself, and as many cores as it is to say
anything about.
"""

import contextlib
import os
import statistics
import sys

from bench import networks
from bench.child import Work, check_ended, start_command
from bench.measure import ROOT, interleave
from bench.results import Part

EFFICIENCY, AT = 0.8, 8  # processes at which the efficiency should be at least that
_STEPS, _BATCH = 12, 2  # of a rank


def measure(settings):
    """The Part of this module.

    Args:
        settings: bench.measure.Settings.
    """
    part = Part("scaling", "seconds a clip; ranks compute with one thread each")
    sizes, frames, drawn = ((3, 48), 60, 4) if settings.quick else ((7, 224), 300, 16)
    paths, about = settings.call(
        "bench.clips:draw_clips", folder=settings.folder, count=drawn, size=(340, 256), frames=frames
    )
    part.notes.append(about)
    shared = {"folder": settings.folder, "paths": paths, "size": sizes}
    counts = [count for count in (1, 2, 4, 8, 16) if count <= settings.threads]
    for what, factory, most in (("reading", "workers", 16), ("training", "ranks", 8)):
        names = {f"{what} with {count} {factory}": count for count in counts if count <= most}
        factories = {
            name: (f"bench.scaling:{factory}", {**shared, "count": count, "quick": settings.quick})
            for name, count in names.items()
        }
        with settings.crew(factories) as contenders:
            timed = interleave(contenders, settings.rounds, warm=0, failures=part.failures)
        _note(part, what, {name: (count, timed[name]) for name, count in names.items() if name in timed})
    return part


def _note(part, what, timed):
    """Rows, and the efficiency of each number of processes against one. A round's own clock counts, see `facts`."""
    clips = {name: one.facts["clips"] for name, (_, one) in timed.items()}
    part.add(what, {name: one.shared_by(clips[name]) for name, (_, one) in timed.items()})
    rates = {count: one.facts["rate"] for count, one in timed.values()}
    for count, rate in rates.items():
        part.notes.append(
            f"{what}: {count} processes, {rate:.2f} clips a second, efficiency {_share(rates, count):.2f}"
        )
    if AT in rates:
        part.aim(f"{what}: efficiency at {AT}", _share(rates, AT), EFFICIENCY, least=True)


def _share(rates, count):
    return rates[count] / (count * rates[1]) if 1 in rates else float("nan")


def workers(folder, paths, size, count, quick):
    """Factory: an epoch of the training loader with so many workers; the facts leave out its first batches."""
    import time

    clips = (8 if quick else 96) * count
    filelist = _write_list(os.path.join(folder, f"workers{count}.list"), paths, clips)
    networks.start()
    from core.config import load_config
    from models import model_section

    wanted = networks.overrides(18, *size, batch=4)
    wanted += [f"TRAIN.filelist={filelist}", f"TRAIN.num_reader_threads={count}", "TRAIN.epoch=1"]
    config = load_config(networks.CONFIG, model_section, wanted)

    def run(_):
        from reader.loader import build_loader

        times = []
        with contextlib.closing(build_loader(config, "train").epoch()) as batches:
            for _ in batches:
                times.append(time.perf_counter())
        warm = min(2 * count, len(times) - 2)  # until every worker is at work
        return {"clips": clips, "rate": 4 * (len(times) - 1 - warm) / (times[-1] - times[warm])}

    return Work(run, lambda found: found)


def ranks(folder, paths, size, count, quick):
    """Factory: a short training on so many CPU ranks, each with a batch of its own; facts come from its journal."""
    clips = count * _BATCH * (3 if quick else _STEPS)
    filelist = _write_list(os.path.join(folder, f"ranks{count}.list"), paths, clips)
    out = os.path.join(folder, f"ranks{count}")
    wanted = networks.overrides(18, size[0], min(size[1], 112), batch=_BATCH * count)
    wanted += [f"TRAIN.filelist={filelist}", "TRAIN.num_reader_threads=1", "TRAIN.epoch=1", "TRAIN.flip_ratio=0"]
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(count), "--log_dir", f"{out}/log"]
    command = [sys.executable, *(launch if count > 1 else []), str(ROOT / "train.py"), f"--config={networks.CONFIG}"]
    command += ["--use_gpu=False", "--pretrain=none", "--valid_interval=0", "--log_interval=1", "--overwrite"]
    command += [f"--save_dir={out}", *(f"-o{text}" for text in wanted)]

    def run(_):
        from engine.journal import read_journal

        log = f"{out}.log"
        check_ended(start_command(command, log, STNET_THREADS="1").wait(), command, log)
        rows = [row for row in read_journal(f"{out}/train_log.jsonl") if row["kind"] == "train"]
        return {"clips": clips, "rate": statistics.median(row["clips_per_s"] for row in rows[1:])}

    return Work(run, lambda found: found)


def _write_list(path, paths, count):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{paths[i % len(paths)]} {i % 400}\n" for i in range(count))
    return path
