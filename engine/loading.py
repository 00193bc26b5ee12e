"""A model with its weights, for the entries that only use it."""

import logging
import os

from core.errors import UserError
from models import get_model
from weights.load import load_into, read_weights

logger = logging.getLogger("stnet")


def load_model(config, mode, weights):
    """The model of a configuration, holding the weights of a file.

    Args:
        config: core.config.Config.
        mode: "test" or "infer".
        weights: file.

    Returns:
        (models.model.Model in evaluation mode, absolute path of the weights).
    """
    if not weights:
        raise UserError("no weights given: set --weights to a .pdparams file")
    tensors = read_weights(weights)
    model = get_model(config.MODEL.name, config, mode)
    load_into(model.network, tensors, weights)
    logger.info("weights: %s", weights)
    return model, os.path.abspath(weights)
