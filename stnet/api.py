"""The public names. Nothing here imports Paddle before it is used."""

from core import config as configuration
from core.cli import ENGINES
from core.config import Config
from core.errors import UserError
from engine.predictor import Predictor
from metrics import METRICS, Metric
from models import MODELS, model_section
from reader.decode import ClipSink
from reader.formats import FORMATS, Format

__all__ = [
    "ENGINES",
    "FORMATS",
    "METRICS",
    "MODELS",
    "ClipSink",
    "Config",
    "Format",
    "Metric",
    "Predictor",
    "UserError",
    "load_config",
]


def load_config(path="configs/stnet.yaml", overrides=(), model_name=""):
    """The checked configuration of a YAML file; configs/stnet.yaml is also found where StNet is installed.

    Args:
        overrides: strings "SECTION.key=value", as after -o on the command line.
        model_name: takes the place of MODEL.name.

    Raises:
        UserError: naming the key at fault, and the nearest known one.
    """
    return configuration.load_config(path, model_section, overrides, model_name)
