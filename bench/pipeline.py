"""eval.py as a whole, against the slower of its halves: decoding alone, and the network alone on clips that are ready.

And the memory of predict.py with one clip.
"""

import contextlib
import os
import resource
import sys
import time

from bench import networks
from bench.child import Work, check_ended, start_command
from bench.measure import ROOT, Failed, interleave
from bench.results import Part

AIM, MEMORY_GB = 1.15, 1.5
ROUNDS = 3  # at most: each takes a minute or two
_EVAL, _DECODE, _FORWARD = "eval.py, the whole program", "decoding alone", "network alone"


def measure(settings):
    """The Part of this module.

    Args:
        settings: bench.measure.Settings.
    """
    layers, seg_num, size, count, drawn, frames = (18, 3, 48, 8, 4, 60) if settings.quick else (50, 25, 256, 40, 8, 300)
    part = Part("pipeline", f"{count} clips, {seg_num} x {size} x {size}, {layers} layers, batch 4, all cores")
    weights = os.path.join(settings.folder, "weights.pdparams")
    settings.call("bench.networks:write_weights", path=weights, layers=layers)
    paths, about = settings.call(
        "bench.clips:draw_clips", folder=settings.folder, count=drawn, size=(340, 256), frames=frames
    )
    part.notes.append(f"{about}; {drawn} different ones, each {count // drawn} times")
    filelist = _write_list(settings.folder, "all.list", paths * (count // drawn))
    wanted = networks.overrides(layers, seg_num, size, batch=4)
    wanted += [f"{section}.num_reader_threads={settings.threads}" for section in ("TEST", "INFER")]
    wanted.append(f"TEST.filelist={filelist}")
    shared = {"folder": settings.folder, "weights": weights, "wanted": wanted}
    factories = {
        _EVAL: ("bench.pipeline:whole", {**shared, "first": _write_list(settings.folder, "first.list", paths[:4])}),
        _DECODE: ("bench.pipeline:decode", {"wanted": wanted}),
        _FORWARD: ("bench.pipeline:forward", {**shared, "count": count}),
    }
    with settings.crew(factories) as contenders:
        timed = interleave(contenders, min(ROUNDS, settings.rounds), warm=0, failures=part.failures)
    part.add("all clips", timed, base=_EVAL)
    if len(timed) == len(factories):
        slower = max((_DECODE, _FORWARD), key=lambda name: timed[name].median)
        part.aim_ratio(f"eval.py / {slower}", timed[_EVAL], timed[slower], AIM)
    _measure_memory(part, settings, {**shared, "video": paths[0]})
    return part


def _write_list(folder, name, paths):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{clip} {i % 400}\n" for i, clip in enumerate(paths))
    return path


def _measure_memory(part, settings, arguments):
    try:
        largest, tree = settings.call("bench.pipeline:memory", **arguments)
    except Failed as error:
        part.failures.append(f"memory of predict.py: {error}")
        return
    part.notes.append(f"predict.py with its reading processes: {tree:.2f} GB at most, pages they share counted once")
    part.aim("predict.py, one clip, main process", largest, MEMORY_GB, unit=" GB")


def _entry(name, folder, weights, wanted, *flags):
    """Run an entry of the project: (process, command, log)."""
    command = [sys.executable, str(ROOT / name), f"--config={networks.CONFIG}", f"--weights={weights}"]
    command += ["--use_gpu=False", f"--save_dir={os.path.join(folder, 'results')}", *flags]
    for text in wanted:
        command += ["-o", text]
    log = os.path.join(folder, f"{name}.log")
    return start_command(command, log, STNET_WEIGHTS_HOME=folder, STNET_WEIGHTS_URL="none"), command, log


def whole(folder, weights, wanted, first):
    """Factory: eval.py; a first run on the list `first` has filled the cache of exports."""

    def run(filelist):
        process, command, log = _entry("eval.py", folder, weights, wanted + filelist)
        check_ended(process.wait(), command, log)

    run([f"TEST.filelist={first}"])
    return Work(lambda _: run([]))


def _config(wanted):
    from core.config import load_config
    from models import model_section

    networks.start()
    return load_config(networks.CONFIG, model_section, wanted)


def decode(wanted):
    """Factory: what eval.py reads, by its own loader, thrown away."""
    config = _config(wanted)
    from reader.loader import build_loader

    def run(_):
        with contextlib.closing(build_loader(config, "test").epoch()) as batches:
            for _ in batches:
                pass

    return Work(run)


def forward(folder, weights, wanted, count):
    """Factory: eval.py's engine on as many clips, which are there."""
    os.environ["STNET_WEIGHTS_HOME"] = folder
    config = _config(wanted)
    import paddle

    from backends.engines import make_engine
    from models import get_model

    model = get_model("STNET", config, "test")
    model.network.set_state_dict(paddle.load(weights))
    section = config.section("test")
    engine = make_engine("auto", model, section)
    clips = networks.clips(section.batch_size, section.seg_num, section.target_size)
    engine(clips)

    def run(_):
        for _ in range(0, count, section.batch_size):
            engine(clips)

    return Work(run)


def memory(folder, weights, wanted, video):
    """(GB of the largest process, of all together) that predict.py takes at most for one video."""
    process, command, log = _entry("predict.py", folder, weights, wanted, f"--video_path={video}")
    together = 0
    while process.poll() is None:
        together = max(together, sum(map(_proportional, _tree(process.pid))))
        time.sleep(0.05)
    check_ended(process.returncode, command, log)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, together / 1e9


def _tree(root):
    """Process ids of a process and all below it."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
            parents.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def _proportional(process):
    """Bytes of a process, a page that several share counted in parts."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    return 0
