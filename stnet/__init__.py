"""StNet for PaddlePaddle: what `from stnet import ...` gives.

    from stnet import Predictor

    for result in Predictor("STNET_final.pdparams").predict(["clip.mp4"]):
        result.print()

In a wheel the other folders lie below this one; in a checkout, also one installed by `pip install -e`, beside it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnet.api import (
        ENGINES,
        FORMATS,
        METRICS,
        MODELS,
        Backbone,
        ClipSink,
        Config,
        Engine,
        ExportEngine,
        Format,
        Metric,
        Model,
        ModelSection,
        Precision,
        Predictor,
        Task,
        UserError,
        key,
        load_config,
    )

__all__ = [
    "ENGINES",
    "FORMATS",
    "METRICS",
    "MODELS",
    "Backbone",
    "ClipSink",
    "Config",
    "Engine",
    "ExportEngine",
    "Format",
    "Metric",
    "Model",
    "ModelSection",
    "Precision",
    "Predictor",
    "Task",
    "UserError",
    "key",
    "load_config",
]

__version__ = "0.2.0"  # setup.py reads it here

_HERE = Path(__file__).parent
if not (_HERE / "core").is_dir():
    sys.path.insert(0, str(_HERE.parent))


def __dir__() -> list[str]:
    """Public names, also those that are not imported yet."""
    return sorted({"__version__", *__all__})


def __getattr__(name: str) -> Any:
    """A public name, imported when it is asked for: `stnet --help` is instant."""
    if name in __all__:
        return getattr(importlib.import_module("stnet.api"), name)
    raise AttributeError(f"module 'stnet' has no attribute {name!r}; it has {', '.join(__all__)}")
