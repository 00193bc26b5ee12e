"""What the entries say after an error: which flag or setting mends it. The rooms below raise the bare facts."""

from __future__ import annotations

import os
import re

from stnet.config import PACKAGE
from stnet.utils.errors import UserError

# Topic of a UserError -> advice. A topic names what is wrong, not where it is raised.
ADVICE: dict[str, str] = {
    "averages alone": "resume from a numbered checkpoint (NAME_epochN), or set --pretrain to this one to start anew "
    "from it",
    "copy": "set --overwrite to replace it, or --render to another file",
    "damaged description": "delete it to use the weights without it",
    "damaged state": "delete it to go on from the weights alone",
    "engine": "--engine=paddle always works",
    "epochs done": "raise --epoch to train on",
    "export folder": "delete it, or set --save_dir to another folder",
    "features": "set --overwrite to replace it, or --features to another file",
    "format of int8": "set --format=onnx",
    "label count": "set MODEL.labels to the names of your classes, or MODEL.num_classes",
    "host": "set --host to an address of this machine",
    "labels": "set MODEL.labels",
    "loss not finite": "a lower learning rate may help (--learning_rate)",
    "missing list": "bash run.sh data makes lists, see data/dataset/README.md",
    "mixed checkpoint": "use another checkpoint",
    "newer file": "update the program",
    "no gpu": "set use_gpu to False to run on the CPU",
    "no gpus": "unset CUDA_VISIBLE_DEVICES, or set use_gpu=False, to run on the CPU",
    "no list": "set filelist in the config, for example -o TRAIN.filelist=train.list",
    "no record": "delete it, or mend it",
    "no whole checkpoint": "set --resume to another, --overwrite without --resume to start anew, or --save_dir to "
    "another folder",
    "not recorded": "delete one of the two",
    "damaged proof": "--calibrate with your clips makes it anew; where it does not, delete that folder",
    "no proof": "set --calibrate to a list of 264 clips or more, labels optional: the proof is kept",
    "onnx": "bash run.sh setup onnx, or pip install 'paddle2onnx>=2.1' onnxruntime ml_dtypes",
    "openvino": "bash run.sh setup openvino, or pip install 'openvino>=2024.0'",
    "other batch size": "set --batch_size to that of the run, or resume from the end of an epoch (NAME_epochN)",
    "other list": "set TRAIN.filelist to the list of that run, or resume from the end of an epoch (NAME_epochN)",
    "other weights": "delete the .json if you replaced them yourself",
    "out": "set --out",
    "out in use": "wait for it, or set --out to another folder",
    "output": "set --resume to go on with it, --overwrite to replace it, or --output to another file",
    "output of others": "set --overwrite to replace it, or --output to another file",
    "parquet": "bash run.sh setup parquet, or pip install 'pyarrow>=16', or name an .npz file",
    "plugin": "--debug shows where",
    "port": "set --port to another, or to 0 for any that is free",
    "ranks differ": "every machine must see the same lists, weights and save_dir",
    "recorded otherwise": "delete both to fetch them again, or the record alone if you changed the file yourself",
    "precision": "set --precision to int8, bf16 or auto",
    "precision of a file": "export in fp32, and compute in bf16 where it is used",
    "refused precision": "--unproven uses it all the same, --calibrate with other clips tries again, and "
    "--precision=fp32 needs no proof",
    "render target": "set --render to another file",
    "resume and overwrite": "--resume goes on with a run, --overwrite removes it: set one of them",
    "replaced proof": "run it again",
    "save_dir": "set --save_dir",
    "save_dir in use": "set --save_dir to a folder of its own",
    "serve": "bash run.sh setup serve, or pip install fastapi fastapi-offline uvicorn python-multipart "
    "prometheus-client",
    "sizes": "set the sizes in MODEL, such as the depth, to those that the weights were made for",
    "start": "set --pretrain to a file, or --pretrain=none to start from random values",
    "timeline of one": "set --video_path to one file, or leave out --render",
    "uint8": "leave out --uint8",
    "used folder": "set --resume=auto to go on with it, --overwrite to remove its checkpoints and logs, or --save_dir "
    "to another folder",
    "used folder without a newest": "set --resume to one of these to go on with it, --overwrite to remove its "
    "checkpoints and logs, or --save_dir to another folder",
    "weights": "set --weights to a file",
    "whole export": "take the weights that it was made of",
}


# Where there is no run.sh, in a wheel: pattern -> what takes its place in advice.
_IN_A_WHEEL = {
    r"bash run\.sh setup \w+, or ": "",
    r"bash run\.sh data (.*), see data/dataset/README\.md": r"stnet data \1, see stnet data --help",
}


def advised(error: UserError) -> str:
    """The error's message, followed by what to do about it."""
    advice = ADVICE[error.topic] if error.topic else ""
    if not os.path.exists(os.path.join(os.path.dirname(PACKAGE), "run.sh")):
        for pattern, replacement in _IN_A_WHEEL.items():
            advice = re.sub(pattern, replacement, advice)
    return f"{error}; {advice}" if advice else str(error)
