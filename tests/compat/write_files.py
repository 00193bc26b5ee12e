"""Write the files that a version leaves on users' disks: python tests/compat/write_files.py FOLDER, by that version.

See README.md beside this file. Everything is written by the version's own entries. Only the values of the weights, of
the optimizer and of the averages are replaced, before each checkpoint, by patterns that repeat, so that 11 M numbers
compress to a few KB; training goes on from them.
"""

import functools
import http.server
import os
import shutil
import sys
import tarfile
import threading
import zlib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from stnet import runtime  # noqa: E402

runtime.prepare()

import numpy as np  # noqa: E402
import yaml  # noqa: E402

import eval as eval_entry  # noqa: E402
import inference_model  # noqa: E402
import predict  # noqa: E402
import train  # noqa: E402
from stnet import cli  # noqa: E402
from stnet.tools.dataset import __main__ as dataset  # noqa: E402
from stnet.training import step as stepper  # noqa: E402
from stnet.training.trainer import Trainer  # noqa: E402
from stnet.weights import download, formats  # noqa: E402

CLIPS = ("mpeg4.avi", "tall_h264.mp4", "twenty_frames.mp4", "wide_h264.mp4")
READING = {"short_size": 64, "target_size": 64, "num_reader_threads": 1}
SETTINGS = {  # besides these, every key of the version's own stnet.yaml
    "MODEL": {"num_classes": 3, "num_layers": 18, "seg_num": 3, "seglen": 2, "topk": 2, "labels": "labels.json"},
    "TRAIN": {**READING, "epoch": 2, "batch_size": 2, "use_gpu": False, "filelist": "train.list", "total_videos": 0,
              "learning_rate": 0.001, "save_interval": 1, "keep": 9, "ema_decay": 0.5},
    "VALID": {**READING, "batch_size": 2, "filelist": "val.list"},
    "TEST": {**READING, "seg_num": 4, "batch_size": 2, "filelist": "val.list"},
    "INFER": {**READING, "seg_num": 4, "filelist": "infer.list"},
}  # fmt: skip
KEPT = ("STNET_epoch0", "STNET_step3")  # at an epoch's end, and within the next


def pattern(name, value, scale=None):
    """Numbers of the shape and type of `value` that repeat after 97, told by `name`."""
    shape = value.shape
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(97)
    if scale is not None:
        drawn = drawn * scale
    elif name.endswith("_variance"):
        drawn = 1 + 0.1 * np.abs(drawn)
    elif len(shape) == 2:  # fc, [in, out]
        drawn = drawn * 10 / shape[0]
    elif len(shape) > 1:
        drawn = drawn * (1 / np.prod(shape[1:])) ** 0.5
    else:
        drawn = 0.1 * drawn + (name.endswith("weight"))
    return np.resize(drawn, shape).astype(value.dtype)


def simplify(trainer):
    """Patterns in place of the numbers of a trainer."""
    for name, value in trainer.model.network.state_dict().items():
        value.set_value(pattern(name, value.numpy()))
    state = stepper.optimizer_state(trainer.model.network, trainer.stepper.optimizer)
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.size > 1:
            state[name] = pattern(name, value, scale=1e-3)
    stepper.set_optimizer_state(trainer.model.network, trainer.stepper.optimizer, state)
    averages = trainer.ema.state()
    averages["averages"] = {name: pattern(name, value) for name, value in averages["averages"].items()}
    trainer.ema.load(averages)


def save_simplified(trainer, suffix, save=Trainer.save):
    """Trainer.save of a simplified trainer."""
    if suffix != "best":  # then the network holds averages for a moment
        simplify(trainer)
    save(trainer, suffix)


def run(entry, *argv):
    """An entry of this version, which must succeed."""
    assert cli.run(entry.main, ["--config=config.yaml", *argv]) == 0, entry


def write_inputs():
    """Lists, labels and a configuration that holds every key."""
    lines = [f"../../videos/{name} {i % 3}\n" for i, name in enumerate(CLIPS)]
    for name in ("train", "val"):
        Path(f"{name}.list").write_text("".join(lines), encoding="utf-8")
    Path("infer.list").write_text("".join(line.split()[0] + "\n" for line in lines), encoding="utf-8")
    Path("labels.json").write_text('["left", "right", "\u4e0a"]\n', encoding="utf-8")
    config = yaml.safe_load((PROJECT / "configs" / "stnet.yaml").read_text(encoding="utf-8"))
    for name, changes in SETTINGS.items():
        config[name].update(changes)
    Path("config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def write_newer(weights):
    """A table that can be resumed, features, a timeline, and an int8 export with its record."""
    common = [weights, "--engine=paddle", "--save_dir=results"]
    run(predict, *common, "--output=results/results.jsonl")
    run(predict, *common, "--features=results/features.npz")
    video = f"--video_path=../../videos/{CLIPS[0]}"
    run(predict, *common, video, "--timeline", "--window=0.5", "--stride=0.25", "--threshold=0.34", "--hold=0.3")
    int8 = ["--format=onnx", "--precision=int8", "--calibrate=val.list", "--unproven"]
    run(inference_model, weights, f"--save_dir={os.path.abspath('deployed_int8')}", *int8)
    shutil.rmtree("weights/exports", ignore_errors=True)
    shutil.move("weights/precision", "proof")
    for folder in Path("proof").iterdir():
        if folder.is_dir():
            pack(f"proof/{folder.name}", folder)


def write_download():
    """A file and a folder of weights, as fetched from a server, each with its record."""
    os.makedirs("served/Tiny_pretrained")
    tensors = {"conv1_weights": np.arange(24, dtype="float32").reshape(2, 3, 2, 2), "fc_0.b_0": np.ones(3, "float32")}
    Path("served/tiny.pdparams").write_bytes(formats.combined_bytes(tensors))
    for name, tensor in tensors.items():
        Path(f"served/Tiny_pretrained/{name}").write_bytes(formats.combined_bytes({name: tensor}))
    with tarfile.open("served/Tiny_pretrained.tar.gz", "w:gz") as archive:
        archive.add("served/Tiny_pretrained", "Tiny_pretrained")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    runtime.set_weights_source("weights", f"http://127.0.0.1:{server.server_port}")
    for name in ("tiny.pdparams", "Tiny_pretrained"):
        download.released(name)
    server.shutdown()
    shutil.rmtree("served")
    for lock in Path("weights").glob(".*.lock"):
        lock.unlink()
    shutil.rmtree("weights/exports", ignore_errors=True)


def pack(name, *paths):
    """Files into NAME.tar.xz, and away."""
    with tarfile.open(f"{name}.tar.xz", "w:xz") as archive:
        for path in paths:
            archive.add(path, os.path.basename(path))
    for path in paths:
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def main(folder):
    """All files, into an empty folder two levels below tests/."""
    os.makedirs(folder)
    runtime.set_weights_source(os.path.abspath(f"{folder}/weights"), "none")
    os.chdir(folder)
    write_inputs()
    Trainer.save = save_simplified
    run(train, "--save_dir=checkpoints", "--pretrain=none", "--fix_random_seed=True", "--log_interval=1")
    for path in Path("checkpoints").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.stem not in KEPT and path.name != "train_log.jsonl":
            path.unlink()
    weights = f"--weights=checkpoints/{KEPT[0]}.pdparams"
    run(eval_entry, weights, "--engine=paddle", "--save_dir=results")
    run(predict, weights, "--engine=paddle", "--save_dir=results")
    for page in (*Path("results").glob("*.png"), Path("results/report.html")):
        page.unlink()  # no program reads them
    for name, file_format in (("deployed", "paddle"), ("deployed_onnx", "onnx")):
        run(inference_model, weights, f"--save_dir={os.path.abspath(name)}", f"--format={file_format}")
    write_newer(weights)
    dataset.main(["check", "--list=val.list", "--config=config.yaml", "--mode=test", "--out=checked"])
    write_download()
    pack("checkpoints/checkpoints", *(str(p) for p in sorted(Path("checkpoints").glob("*.pd*"))))
    for deployed in ("deployed", "deployed_onnx", "deployed_int8"):
        pack(f"{deployed}/model", *(str(p) for p in sorted(Path(deployed).glob("STNET.*"))))


if __name__ == "__main__":
    main(sys.argv[1])
