"""Steps of one batch and of two, of clips that not all can be read, with batch norm in evaluation mode, then
evaluations of one view and of six.

on_ranks.py CONFIG FOLDER, alone or launched.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stnet import parallel, runtime  # noqa: E402

runtime.prepare()

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from stnet.config import load_config  # noqa: E402
from stnet.evaluation.files import write_files  # noqa: E402
from stnet.evaluation.loop import evaluate  # noqa: E402
from stnet.evaluation.results import Collector  # noqa: E402
from stnet.models import get_model, model_section  # noqa: E402
from stnet.models.dygraph import Dygraph  # noqa: E402
from stnet.models.normalizer import Normalizer  # noqa: E402
from stnet.reader.loader import build_loader  # noqa: E402
from stnet.training.trainer import Trainer  # noqa: E402


def main(path, folder):
    runtime.start(use_gpu=False)
    rank, ranks = parallel.start()
    paddle.set_default_dtype("float64")  # rounding must not tip a ReLU over
    paddle.seed(7)
    views = ["TEST.num_clips=2", "TEST.num_crops=3"]
    training = ["TRAIN.learning_rate=0.001", f"TRAIN.filelist={folder}/train.list", "TRAIN.max_bad_ratio=0.5"]
    config = load_config(path, model_section, ["VALID.batch_size=2", *training, *views])
    model = get_model("STNET", config, "train")
    normalize = Normalizer(config.MODEL.image_mean, config.MODEL.image_std, "float64")
    trainer = Trainer(model, normalize, build_loader(config, "train", rank, ranks, 3), None, (9, 18), folder, seed=3)
    model.network.eval()
    model.network.train = lambda: None
    batches = [b for epoch in range(3) for b in list(trainer.loader.epoch(epoch))[:2]]
    for group in ([batches[0]], batches[1:3], [batches[3]], [batches[4]]):
        trainer.train_step(group)
    trainer.train_step([batches[5]._replace(indices=[])])  # without a clip on any rank
    read = parallel.gather([len(batch.indices) for batch in batches])
    untrained = get_model("STNET", config, "valid")
    paddle.seed(8)
    for _, value in sorted(untrained.network.state_dict().items()):
        value.set_value(paddle.uniform(value.shape, min=0.01, max=0.05, dtype="float64"))
    engine = Dygraph(untrained.network, normalize)
    scores = {mode: evaluate(engine, build_loader(config, mode, rank, ranks)) for mode in ("valid", "test")}
    if rank == 0:
        np.savez(f"{folder}/weights.npz", **{n: v.numpy() for n, v in trainer.model.network.state_dict().items()})
        Path(f"{folder}/scores.json").write_text(json.dumps({**scores, "read": read}), encoding="utf-8")
    loader = build_loader(config, "valid", rank, ranks, filelist=f"{folder}/val.list")
    collector = Collector("abcd", loader.bad)
    evaluate(Dygraph(untrained.network, normalize), loader, collector=collector)
    evaluation = collector.evaluation()
    if rank == 0:
        write_files(evaluation, f"{folder}/evaluation", topk=2)
    if ranks > 1:
        _step_without_clips_on_rank_0(trainer, batches[0], folder)


def _step_without_clips_on_rank_0(trainer, batch, folder):
    """How far batch norm's statistics and the weights of rank 0 move, in training mode, into moved.json."""
    network, statistics = trainer.model.network, ("._mean", "._variance")
    network.__class__.train(network)
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    trainer.train_step([batch if parallel.rank() else batch._replace(indices=[])])
    moved = {name: float(abs(value.numpy() - before[name]).max()) for name, value in network.state_dict().items()}
    if parallel.rank() == 0:
        kinds = [[moved[n] for n in moved if n.endswith(statistics) == kind] for kind in (True, False)]
        Path(f"{folder}/moved.json").write_text(json.dumps([max(kind) for kind in kinds]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
