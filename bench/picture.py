"""Part precision as a picture: bars of the times, against the fastest float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stnet.utils.atomic import write_atomically
from stnet.utils.files import StrPath

OURS, PEER = "#1f6feb", "#b8c0cc"


def draw(report: Mapping[str, Any], path: StrPath) -> None:
    """Write a PNG.

    Args:
        report: what `python -m bench` writes as JSON, with part precision.
        path: the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = report["parts"]["precision"]["rows"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    figure = Figure(figsize=(4.6 * len(groups), 0.26 * len(rows) / len(groups) + 1.1), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups):
        bars = sorted((row["ratio"], row["name"]) for row in rows if row["group"] == group)[::-1]
        drawn = axes.barh([name for _, name in bars], [ratio for ratio, _ in bars])
        for bar, (ratio, name) in zip(drawn, bars):
            bar.set_color(OURS if name.startswith("ours") else PEER)
            axes.text(min(ratio, 1.6), bar.get_y() + bar.get_height() / 2, f" {ratio:.2f}", va="center", fontsize=8)
        axes.axvline(1, color="#57606a", linewidth=0.8)
        axes.set_xlim(0, 1.9)
        axes.set_title(group, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    machine = report["machine"]
    figure.supxlabel(
        f"time of one clip / that of the fastest float32; {machine['cpu']}, {machine['cores']} cores", fontsize=8
    )
    write_atomically(str(path), lambda temporary: figure.savefig(temporary, format="png"))
