"""Model factory: `get_model("STNET", config, mode)`.

To add a model, put it into a folder and import it below, which registers it; or name a file of your own by --plugin.
"""

from __future__ import annotations

from stnet.config import Config, ModelSection
from stnet.models import stnet  # noqa: F401  (registers STNET)
from stnet.models.model import MODELS, Model


def get_model(name: str, config: Config, mode: str = "infer") -> Model:
    """Build the model called `name` for a configuration.

    Args:
        name: registered name, in any case. An unknown one raises UserError that lists the known.
        mode: "train", "valid", "test" or "infer".
    """
    return MODELS.get(name)(config, mode)


def model_section(name: str) -> type[ModelSection]:
    """Dataclass of the MODEL section for the model called `name`."""
    return MODELS.get(name).Section
