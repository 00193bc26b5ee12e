"""A model and an engine of someone else's, as a file that --plugin names: everything by public names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stnet import ENGINES, MODELS, Engine, Model, ModelSection, key


@dataclass
class ColourSection(ModelSection):
    """MODEL keys of COLOUR."""

    width: int = key(8, least=1)


@MODELS.register("COLOUR")
class Colour(Model):
    """Classes by the mean colours of a clip: no ResNet, no layers to count, no published weights."""

    Section = ColourSection

    def build_network(self):
        """A projection of each super-image, the mean over the segments, the classes."""
        from paddle import nn

        class Network(nn.Layer):
            def __init__(self, channels, width, num_classes):
                super().__init__()
                self.project = nn.Linear(channels, width)
                self.classes = nn.Linear(width, num_classes)

            def forward(self, clips):
                means = clips.mean(axis=[3, 4])  # [B, seg_num, 3 * seglen, H, W] -> [B, seg_num, 3 * seglen]
                return self.classes(nn.functional.relu(self.project(means)).mean(axis=1))  # [B, num_classes]

        settings = self.config.MODEL
        return Network(3 * self.seglen, settings.width, settings.num_classes)


@ENGINES.register("numpy")
class NumPy(Engine):
    """The network of COLOUR in NumPy."""

    def make(self, task):
        """A function from clips to logits."""
        settings, seglen = task.model.config.MODEL, task.model.seglen
        mean, std = np.tile(settings.image_mean, seglen), np.tile(settings.image_std, seglen)
        values = {name: value.numpy() for name, value in task.model.network.state_dict().items()}

        def compute(clips):
            means = (np.asarray(clips).mean(axis=(3, 4)) / 255 - mean) / std
            hidden = np.maximum(means @ values["project.weight"] + values["project.bias"], 0).mean(axis=1)
            return (hidden @ values["classes.weight"] + values["classes.bias"]).astype("float32")

        return compute
