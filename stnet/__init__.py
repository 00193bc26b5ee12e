"""StNet for PaddlePaddle.

from stnet import Predictor

for result in Predictor("STNET_final.pdparams").predict(["clip.mp4"]):
    result.print()
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stnet import runtime

if TYPE_CHECKING:
    from stnet.backends.engines import ENGINES as ENGINES
    from stnet.backends.engines import Engine as Engine
    from stnet.backends.engines import ExportEngine as ExportEngine
    from stnet.backends.engines import Task as Task
    from stnet.config import Config as Config
    from stnet.config import ModelSection as ModelSection
    from stnet.config import key as key
    from stnet.inference.predictor import Predictor as Predictor
    from stnet.metrics import METRICS as METRICS
    from stnet.metrics import Metric as Metric
    from stnet.models import MODELS as MODELS
    from stnet.models.model import Backbone as Backbone
    from stnet.models.model import Model as Model
    from stnet.quantize.report import Precision as Precision
    from stnet.reader.decode import ClipSink as ClipSink
    from stnet.reader.formats import FORMATS as FORMATS
    from stnet.reader.formats import Format as Format
    from stnet.utils.errors import UserError as UserError

INSTALL = "is not installed for this Python: . .venv/bin/activate, after bash run.sh setup; or pip install stnet-paddle"
for _name in ("filelock", "yaml"):  # of all that StNet needs, these are imported first
    if importlib.util.find_spec(_name) is None:
        raise ModuleNotFoundError(f"{_name} {INSTALL}", name=_name)

__version__ = "0.2.0"  # setup.py reads it here

_MODULES = {
    "ENGINES": "stnet.backends.engines",
    "FORMATS": "stnet.reader.formats",
    "METRICS": "stnet.metrics",
    "MODELS": "stnet.models",
    "Backbone": "stnet.models.model",
    "ClipSink": "stnet.reader.decode",
    "Config": "stnet.config",
    "Engine": "stnet.backends.engines",
    "ExportEngine": "stnet.backends.engines",
    "Format": "stnet.reader.formats",
    "Metric": "stnet.metrics",
    "Model": "stnet.models.model",
    "ModelSection": "stnet.config",
    "Precision": "stnet.quantize.report",
    "Predictor": "stnet.inference.predictor",
    "Task": "stnet.backends.engines",
    "UserError": "stnet.utils.errors",
    "key": "stnet.config",
}
__all__ = [*_MODULES, "load_config"]  # noqa: PLE0604

if not (Path(__file__).parent / "models").is_dir():  # a checkout without symbolic links, as on Windows or in a zip file
    __path__.append(str(Path(__file__).parents[1]))


def __dir__() -> list[str]:
    """Public names, also those that are not imported yet."""
    return ["__version__", *__all__]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that `stnet --help` is instant."""
    if name in _MODULES:
        runtime.prepare()  # before Paddle is imported
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'stnet' has no attribute {name!r}; it has {', '.join(__all__)}")


def load_config(path: str = "configs/stnet.yaml", overrides: Iterable[str] = (), model_name: str = "") -> Config:
    """Read and check a YAML file; configs/stnet.yaml is also found where StNet is installed.

    Args:
        overrides: "SECTION.key=value", as after -o on the command line.
        model_name: replaces MODEL.name.

    Raises:
        UserError: names the invalid key and the nearest known one.
    """
    from stnet import config  # late, so that `stnet --help` is instant
    from stnet.models import model_section

    return config.load_config(path, model_section, overrides, {"MODEL.name": model_name} if model_name else {})
