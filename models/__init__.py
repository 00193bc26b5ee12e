"""Model factory: `get_model("STNET", config, mode)`.

To add a model, put it into a folder of its own and add it to the imports below: importing it registers it.
"""

from models import stnet  # noqa: F401  (registers STNET)
from models.model import MODELS


def get_model(name, config, mode="infer"):
    """The model called `name` (any case) for a configuration.

    Args:
        name: registered name; an unknown one raises UserError that lists the known.
        config: core.config.Config.
        mode: "train", "valid", "test" or "infer".

    Returns:
        models.model.Model, whose `network` is a paddle.nn.Layer that returns logits.
    """
    return MODELS.get(name)(config, mode)


def model_section(name):
    """The dataclass that checks the MODEL section of the model called `name`."""
    return MODELS.get(name).Section
