"""Model factory: `get_model("STNET", config, mode)`.

To add a model, put it into a folder of its own and add it to the imports below: importing it registers it.
"""

from __future__ import annotations

from stnet.config import Config, ModelSection
from stnet.models import stnet  # noqa: F401  (registers STNET)
from stnet.models.model import MODELS, Model


def get_model(name: str, config: Config, mode: str = "infer") -> Model:
    """The model called `name` (any case) for a configuration.

    Args:
        name: registered name; an unknown one raises UserError that lists the known.
        mode: "train", "valid", "test" or "infer".
    """
    return MODELS.get(name)(config, mode)


def model_section(name: str) -> type[ModelSection]:
    """The dataclass that checks the MODEL section of the model called `name`."""
    return MODELS.get(name).Section
