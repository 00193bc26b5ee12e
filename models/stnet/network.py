"""The StNet network (He et al., "StNet: Local and Global Spatial-Temporal Modeling for Action Recognition", AAAI 2019).

Super-images, each `seglen` RGB frames stacked on the channel axis, go through a 2D ResNet. Temporal blocks
after the second and third stage and a temporal Xception block at the end relate them along time.
B is the batch, T the number of segments (seg_num), C the channels of a place in the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.nn.initializer import KaimingUniform, Uniform

from stnet.models.stnet.depths import DEPTHS, WIDTHS, Depth


def _kaiming() -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=KaimingUniform())


class ResidualBlock(nn.Layer):
    """Basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) residual block, post-activation, stride on the first 3x3.

    Maps [N, in_channels, H, W] to [N, width * expansion, H / stride, W / stride].
    """

    def __init__(self, in_channels: int, width: int, stride: int, depth: Depth) -> None:
        super().__init__()
        out_channels = width * depth.expansion
        first_kernel, first_stride = (1, 1) if depth.bottleneck else (3, stride)
        self.conv1 = _conv(in_channels, width, first_kernel, first_stride)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = _conv(width, width, 3, stride if depth.bottleneck else 1)
        self.bn2 = nn.BatchNorm2D(width)
        self.bottleneck = depth.bottleneck
        if depth.bottleneck:
            self.conv3 = _conv(width, out_channels, 1, 1)
            self.bn3 = nn.BatchNorm2D(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2D(out_channels))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        if self.bottleneck:
            x = self.bn3(self.conv3(F.relu(x)))
        return F.relu(x + shortcut)


class TemporalBlock(nn.Layer):
    """Convolution of length 3 along the segments, then ReLU, then batch norm, added to the input.

    The paper writes conv-BN-ReLU; the released weights were trained in this order, with the residual.
    The weight of a Conv3D [C, C, 3, 1, 1] is applied as a Conv2D (3, 1) over [T, H * W], which is faster on the CPU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3D(channels, channels, (3, 1, 1), padding=(1, 0, 0), weight_attr=_kaiming())
        self.bn = nn.BatchNorm3D(channels)

    def forward(self, x: paddle.Tensor, seg_num: int) -> paddle.Tensor:
        _, c, h, w = x.shape
        clip = x.reshape([-1, seg_num, c, h * w]).transpose([0, 2, 1, 3])  # [B*T, C, h, w] -> [B, C, T, h*w]
        y = F.conv2d(clip, self.conv.weight.squeeze(-1), self.conv.bias, padding=(1, 0))
        y = self.bn(F.relu(y).unsqueeze(-1)).squeeze(-1) + clip
        return y.transpose([0, 2, 1, 3]).reshape([-1, c, h, w])  # [B, C, T, h*w] -> [B*T, C, h, w]

    def macs(self, shape: Sequence[int]) -> int:
        """Multiply-adds for an input of this shape (stnet.models.macs)."""
        return shape[0] * shape[2] * shape[3] * self.conv.weight.size


class TemporalXception(nn.Layer):
    """Temporal Xception block: depthwise separable convolutions along the segments (paper, section 3.3).

    Maps [B, channels, T, 1] to [B, channels / 2, T, 1].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        out = channels // 2

        def depthwise(c: int) -> nn.Conv2D:
            return nn.Conv2D(c, c, (3, 1), padding=(1, 0), groups=c, weight_attr=_kaiming())

        def pointwise(c: int) -> nn.Conv2D:
            return nn.Conv2D(c, out, 1, weight_attr=_kaiming())

        self.bn = nn.BatchNorm2D(channels)
        self.att_conv = depthwise(channels)
        self.att_2 = pointwise(channels)
        self.bndw = nn.BatchNorm2D(out)
        self.att1 = depthwise(out)
        self.att1_2 = pointwise(out)
        self.dw = pointwise(channels)
        self.bn2 = nn.BatchNorm2D(out)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        z = self.bn(x)
        y = F.relu(self.bndw(self.att_2(self.att_conv(z))))
        y = self.att1_2(self.att1(y))
        return F.relu(self.bn2(y + self.dw(z)))


class StNet(nn.Layer):
    """StNet.

    Args:
        depth: layers of the ResNet: 18, 34, 50, 101 or 152.
        num_classes: classes.
        seglen: frames in a super-image.

    Forward: [B, T, 3 * seglen, H, W] float -> logits [B, num_classes]. T may differ from one call to the next.
    """

    def __init__(self, depth: int = 50, num_classes: int = 400, seglen: int = 5) -> None:
        super().__init__()
        self.seglen = seglen
        self.conv1 = _conv(3 * seglen, 64, 7, 2)
        self.bn1 = nn.BatchNorm2D(64)
        spec = DEPTHS[depth]
        in_channels = 64
        for i, (width, blocks) in enumerate(zip(WIDTHS, spec.blocks)):
            layers = []
            for j in range(blocks):
                layers.append(ResidualBlock(in_channels, width, 2 if i and j == 0 else 1, spec))
                in_channels = width * spec.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.temporal1 = TemporalBlock(WIDTHS[1] * spec.expansion)
        self.temporal2 = TemporalBlock(WIDTHS[2] * spec.expansion)
        self.xception = TemporalXception(in_channels)
        bound = 1 / math.sqrt(in_channels)
        self.embedding_size = in_channels // 2
        self.fc = nn.Linear(
            self.embedding_size, num_classes, weight_attr=paddle.ParamAttr(initializer=Uniform(-bound, bound))
        )

    def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
        return self.classify(self.backbone(clips))

    def backbone(self, clips: paddle.Tensor) -> paddle.Tensor:
        """Pooled vectors of the segments [B, T, C]; clips as for forward."""
        if paddle.in_dynamic_mode():
            self._check_input(clips)
        _, seg_num, channels, height, width = clips.shape
        x = clips.reshape([-1, channels, height, width])  # [B, T, 3*seglen, H, W] -> [B*T, 3*seglen, H, W]
        x = self.temporal1(self.stem(x), seg_num)
        x = self.layer3(x)
        x = self.temporal2(x, seg_num)
        x = self.pool(self.layer4(x))  # [B*T, C]
        return x.reshape([-1, seg_num, x.shape[1]])

    def relate(self, segments: paddle.Tensor) -> paddle.Tensor:
        """Input of the classifier [B, C / 2] from the vectors of the segments [B, T, C]."""
        x = self.xception(segments.transpose([0, 2, 1]).unsqueeze(-1))  # [B, C, T, 1] -> [B, C/2, T, 1]
        return x.max(axis=[2, 3])

    def classify(self, segments: paddle.Tensor) -> paddle.Tensor:
        """Logits [B, num_classes] from the vectors of the segments [B, T, C]."""
        return self.fc(self.relate(segments))

    def embed(self, clips: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """(vectors of the segments [B, T, C], input of the classifier [B, C / 2]); clips as for forward."""
        segments = self.backbone(clips)
        return segments, self.relate(segments)

    def stem(self, x: paddle.Tensor) -> paddle.Tensor:
        """Layers before the first temporal block: [N, 3 * seglen, H, W] -> [N, C, H / 8, W / 8]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.layer2(self.layer1(x))

    def pool(self, x: paddle.Tensor) -> paddle.Tensor:
        """Mean over the pixels: [N, C, h, w] -> [N, C]."""
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def _check_input(self, clips: paddle.Tensor) -> None:
        shape = list(clips.shape)
        if len(shape) != 5 or shape[2] != 3 * self.seglen or 0 in shape:
            raise ValueError(
                f"StNet: expected clips of shape [batch, seg_num, {3 * self.seglen}, height, width] "
                f"(3 x seglen {self.seglen} channels), found {shape}"
            )


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Conv2D:
    return nn.Conv2D(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias_attr=False)
