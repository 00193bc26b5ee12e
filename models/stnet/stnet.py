"""Model STNET: the network's configuration and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from stnet.config import ModelSection, key
from stnet.models.model import MODELS, Backbone, Model
from stnet.models.stnet.backbone import from_resnet
from stnet.models.stnet.depths import DEPTHS
from stnet.models.stnet.names import original_to_structured
from stnet.models.streaming import Streaming
from stnet.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from stnet.models.stnet.network import StNet


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

    @property
    def section(self) -> StNetSection:
        """MODEL section."""
        return cast(StNetSection, self.config.MODEL)

    def build_network(self) -> StNet:
        """Build the network. Raises UserError for an unknown `num_layers`."""
        from stnet.models.stnet.network import StNet

        section = self.section
        if section.num_layers not in DEPTHS:
            known = ", ".join(map(str, DEPTHS))
            raise UserError(f"MODEL.num_layers: expected one of {known}, found {section.num_layers}")
        return StNet(depth=section.num_layers, num_classes=section.num_classes, seglen=self.seglen)

    def streaming(self) -> Streaming:
        """Network in parts, for any number of layers and segments."""
        from stnet.models.stnet.streaming import StNetStreaming

        return StNetStreaming(self.network)

    def original_names(self) -> dict[str, str]:
        """Original name -> structured name of every tensor of the network."""
        return original_to_structured(self.section.num_layers)

    def backbone(self, tensors: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]]) -> Backbone | None:
        """Fit the tensors of a ResNet; None for those of a StNet."""
        return from_resnet(tensors, shapes)

    def pretrained_name(self) -> str:
        """Released ImageNet ResNet of this depth. Raises UserError if there is none."""
        depth = self.section.num_layers
        if depth != 50:
            raise UserError(
                f"no ImageNet weights are published for {depth} layers (only for 50)",
                "set --pretrain to a file, or --pretrain=none to start from random values",
            )
        return self.pretrained[0]
