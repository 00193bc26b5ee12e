"""Report the results of the demo: python -m tools.demo_report FOLDER SECONDS."""

from __future__ import annotations

import json
import os
import sys

from stnet.utils import streams


def report(folder: str, seconds: float) -> list[str]:
    """Lines of the report on a finished demo in `folder`."""
    with open(os.path.join(folder, "results", "eval_results.json"), encoding="utf-8") as file:
        scores = json.load(file)
    with open(os.path.join(folder, "results", "predict_results.json"), encoding="utf-8") as file:
        clip = json.load(file)["results"][0]
    best = clip["predictions"][0]
    return [
        f"Trained an 18-layer StNet on drawn clips and scored it on {scores['count']} it had not seen, "
        f"in {int(seconds)} s.",
        f"{os.path.basename(clip['path'])}: predicted {best['label']} with probability {best['probability']:.3f}",
        f"held-out accuracy: top-1 {scores['TOP1_ACC']:.4f}",
        f"clips, checkpoints and results are in {folder}",
        "with these weights: bash run.sh predict STNET configs/stnet_demo.yaml "
        f"--weights={folder}/checkpoints/STNET_final.pdparams --video_path=a.mp4",
        f"to look at in a browser: {folder}/results/report.html, {folder}/checkpoints/training.html",
    ]


if __name__ == "__main__":
    streams.prepare()
    print("\n".join(report(sys.argv[1], float(sys.argv[2]))))
