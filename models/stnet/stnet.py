"""Model STNET: configuration, released weights, and the ImageNet ResNet to start training from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from stnet.config import ModelSection, key
from stnet.models.model import MODELS, Backbone, Model
from stnet.models.stnet.depths import DEPTHS
from stnet.models.stnet.names import original_to_structured
from stnet.models.streaming import Streaming
from stnet.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from stnet.models.stnet.network import StNet

# Places of TRAIN.freeze in the order of the network, and the layers between each and the one before
_PLACES = {
    "stem": ("conv1.", "bn1."),
    "stage1": ("layer1.",),
    "stage2": ("layer2.",),
    "stage3": ("temporal1.", "layer3."),
    "backbone": ("temporal2.", "layer4."),
}
# Names of the ResNet, structured or original; not fc
_BACKBONE = re.compile(r"(conv1|bn1|layer\d)\.|(res|bn)\d|(bn_)?conv1_")


@dataclass
class StNetSection(ModelSection):
    """MODEL keys of STNET."""

    num_layers: int = key(50)


@MODELS.register("STNET")
class STNET(Model):
    """StNet with a ResNet of `MODEL.num_layers` layers."""

    Section = StNetSection
    head = "fc."
    # Files of the original's model zoo. The released StNet has 50 layers and Kinetics-400's classes.
    released = ("STNET_final.pdparams", "STNET.pdparams")
    released_for = {"num_layers": 50, "num_classes": 400}
    pretrained = ("ResNet50_pretrained",)
    places = dict(zip(_PLACES, itertools.accumulate(_PLACES.values())))

    @property
    def section(self) -> StNetSection:
        """MODEL section."""
        return cast(StNetSection, self.config.MODEL)

    def build_network(self) -> StNet:
        """Build the network. Raises UserError for an unknown `num_layers`."""
        from stnet.models.stnet.network import StNet  # needs Paddle: late, so that --help is instant

        section = self.section
        if section.num_layers not in DEPTHS:
            known = ", ".join(map(str, DEPTHS))
            raise UserError(f"MODEL.num_layers: expected one of {known}, found {section.num_layers}")
        return StNet(depth=section.num_layers, num_classes=section.num_classes, seglen=self.seglen)

    def streaming(self) -> Streaming:
        """Network in stages, for any number of layers and segments."""
        from stnet.models.stnet.streaming import StNetStreaming  # needs Paddle, too

        return StNetStreaming(self.network)

    def original_names(self) -> dict[str, str]:
        """Original name -> structured name of every tensor of the network."""
        return original_to_structured(self.section.num_layers)

    def backbone(self, tensors: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]]) -> Backbone | None:
        """Fit the convolutions and batch norms of a ResNet; None for the tensors of a StNet.

        The temporal blocks, the Xception block and fc keep their initial values.

        Args:
            tensors: of a file, by structured name.
            shapes: of the network.
        """
        if any(name.startswith("temporal") for name in tensors):
            return None
        backbone = {name: tensor for name, tensor in tensors.items() if _BACKBONE.match(name)}
        if "conv1.weight" in backbone:
            backbone["conv1.weight"] = inflate(backbone["conv1.weight"], shapes["conv1.weight"][1])
        return Backbone([name for name in shapes if _BACKBONE.match(name)], backbone)

    def pretrained_name(self) -> str:
        """Released ImageNet ResNet of this depth. Raises UserError if there is none."""
        depth = self.section.num_layers
        if depth != 50:
            raise UserError(
                f"no ImageNet weights are published for {depth} layers (only for 50)",
                "set --pretrain to a file, or --pretrain=none to start from random values",
            )
        return self.pretrained[0]


def inflate(weight: np.ndarray, channels: int) -> np.ndarray:
    """Inflate conv1 of ImageNet [C, 3, h, w] to super-images [C, channels, h, w]: mean over colours / seglen."""
    if weight.ndim != 4 or weight.shape[1] == channels:
        return weight
    seglen = channels // 3
    mean = weight.mean(axis=1, keepdims=True)  # [C, 1, h, w]
    return (mean / seglen).repeat(channels, axis=1).astype(weight.dtype)
