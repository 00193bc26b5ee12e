"""STNET for the model factory."""

from dataclasses import dataclass

from core.config import ModelSection, key
from models.model import MODELS, Model
from models.stnet.depths import DEPTHS


@dataclass
class StNetSection(ModelSection):
    """MODEL keys of STNET."""

    num_layers: int = key(50)


@MODELS.register("STNET")
class STNET(Model):
    """StNet with a ResNet of `MODEL.num_layers` layers."""

    Section = StNetSection

    def build_network(self):
        """The network. `num_layers` outside the known depths raises UserError."""
        from core.errors import UserError
        from models.stnet.network import StNet

        model = self.config.MODEL
        if model.num_layers not in DEPTHS:
            known = ", ".join(map(str, DEPTHS))
            raise UserError(f"MODEL.num_layers: expected one of {known}, found {model.num_layers}")
        return StNet(
            depth=model.num_layers,
            num_classes=model.num_classes,
            seglen=self.config.section(self.mode).seglen,
        )
