"""What the tests of training share."""

import paddle

from stnet.config import load_config
from stnet.models import get_model, model_section
from stnet.models.normalizer import Normalizer
from stnet.reader.loader import build_loader
from stnet.training.log import read_journal
from stnet.training.trainer import Trainer


def make_trainer(clip_set, folder, *overrides, evaluation_bn=False, validate=False):
    """A Trainer on the tiny clip set, every weight and draw from a fixed seed."""
    paddle.seed(7)
    config = load_config(clip_set / "tiny.yaml", model_section, overrides)
    model = get_model("STNET", config, "train")
    loader = build_loader(config, "train", seed=3)
    valid = build_loader(config, "valid") if validate else None
    normalize = Normalizer(config.MODEL.image_mean, config.MODEL.image_std)
    trainer = Trainer(model, normalize, loader, valid, (100, 200), str(folder), seed=3, log_interval=1)
    if evaluation_bn:
        model.network.eval()
        model.network.train = lambda: None
    return trainer


def weights(trainer):
    return {name: value.numpy().copy() for name, value in trainer.model.network.state_dict().items()}


def difference(a, b):
    """Largest difference of two sets of weights, relative to the largest weight of each tensor."""
    return max(abs(a[n] - b[n]).max() / max(abs(a[n]).max(), 1e-3) for n in a)


def train_losses(folder):
    return [row["loss"] for row in read_journal(f"{folder}/train_log.jsonl") if row["kind"] == "train"]


def saved(folder):
    return sorted(path.stem for path in folder.glob("*.json"))
