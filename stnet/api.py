"""The public names. Nothing here imports Paddle before it is used."""

from __future__ import annotations

from collections.abc import Iterable

from backends.engines import ENGINES, Engine, ExportEngine, Task
from backends.gate import Precision
from core import config as configuration
from core.config import Config, ModelSection, key
from core.errors import UserError
from engine.predictor import Predictor
from metrics import METRICS, Metric
from models import MODELS, model_section
from models.model import Backbone, Model
from reader.decode import ClipSink
from reader.formats import FORMATS, Format

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


def load_config(path: str = "configs/stnet.yaml", overrides: Iterable[str] = (), model_name: str = "") -> Config:
    """The checked configuration of a YAML file; configs/stnet.yaml is also found where StNet is installed.

    Args:
        overrides: "SECTION.key=value", as after -o on the command line.
        model_name: takes the place of MODEL.name.

    Raises:
        UserError: naming the key at fault, and the nearest known one.
    """
    return configuration.load_config(path, model_section, overrides, {"MODEL.name": model_name} if model_name else {})
