"""StNet for paddle.hub: paddle.hub.load(FOLDER, "stnet", source="local", pretrained="STNET_final.pdparams").

FOLDER is the one of this file. Paddle takes it off sys.path after this import, so all of stnet is imported here.
"""

from __future__ import annotations

import os
import typing

import stnet.models.stnet.network as _network  # which get_model imports late
from stnet.config import PACKAGE as _PACKAGE
from stnet.config import load_config as _load_config
from stnet.models import get_model as _get_model
from stnet.models import model_section as _model_section
from stnet.weights.loading import load_model as _load_model
from stnet.weights.metadata import saved_config as _saved_config

dependencies = ["paddle", "numpy", "yaml", "filelock"]


def stnet(pretrained: bool | str = False, **settings: typing.Any) -> _network.StNet:
    """The network, in evaluation mode.

    Its input is float32 [B, seg_num, 3 * seglen, H, W]: RGB frames, (value / 255 - mean) / std, seglen of them stacked
    on the channels of each segment. Its output is logits [B, num_classes].

    Args:
        pretrained: True: the released weights, downloaded if need be; a file or folder of weights, such as that of
            PaddleHub's stnet_kinetics400; False: random values.
        settings: keys of section MODEL of the configuration, such as num_classes=4, num_layers=101 or seglen=3; by
            default those saved with the weights, or else the released network's.

    Raises:
        stnet.utils.errors.UserError: no such weights, or they do not fit.
    """
    path = pretrained if isinstance(pretrained, str) else ""
    source = _saved_config(path) or os.path.join(_PACKAGE, "configs", "stnet.yaml")
    config = _load_config(source, _model_section, values={f"MODEL.{key}": value for key, value in settings.items()})
    model = _load_model(config, "infer", path).model if pretrained else _get_model("STNET", config, "infer")
    return typing.cast(_network.StNet, model.network)
