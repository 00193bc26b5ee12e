"""StNet in PyTorch, with our parameter names, so that our weights load as they are. For comparison only."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.stnet.depths import DEPTHS, WIDTHS


def from_paddle(network, depth, num_classes, seglen):
    """The same network with the same weights as a Paddle one, in evaluation mode."""
    made = StNet(depth, num_classes, seglen)
    renamed = {"_mean": "running_mean", "_variance": "running_var"}
    state = {}
    for name, value in network.state_dict().items():
        *path, leaf = name.split(".")
        array = np.array(value.numpy())
        is_linear = path == ["fc"] and leaf == "weight"
        state[".".join([*path, renamed.get(leaf, leaf)])] = torch.from_numpy(array.T.copy() if is_linear else array)
    missing, unexpected = made.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"weights differ: missing {missing}, unexpected {unexpected}")
    return made.eval()


class StNet(nn.Module):
    """As models.stnet.network.StNet: [B, T, 3 * seglen, H, W] -> logits [B, num_classes]."""

    def __init__(self, depth=50, num_classes=400, seglen=5):
        super().__init__()
        spec = DEPTHS[depth]
        self.conv1 = nn.Conv2d(3 * seglen, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for i, (width, blocks) in enumerate(zip(WIDTHS, spec.blocks)):
            layers = []
            for j in range(blocks):
                layers.append(_Residual(channels, width, 2 if i and j == 0 else 1, spec))
                channels = width * spec.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.temporal1 = _Temporal(WIDTHS[1] * spec.expansion)
        self.temporal2 = _Temporal(WIDTHS[2] * spec.expansion)
        self.xception = _Xception(channels)
        self.fc = nn.Linear(channels // 2, num_classes)

    def forward(self, clips):
        """[B, T, 3 * seglen, H, W] float -> logits [B, num_classes]."""
        seg_num = clips.shape[1]
        x = F.relu(self.bn1(self.conv1(clips.flatten(0, 1))))
        x = self.layer2(self.layer1(F.max_pool2d(x, 3, 2, 1)))
        x = self.layer3(self.temporal1(x, seg_num))
        x = self.layer4(self.temporal2(x, seg_num))
        x = x.mean([2, 3]).unflatten(0, (-1, seg_num)).transpose(1, 2).unsqueeze(-1)  # [B, C, T, 1]
        return self.fc(self.xception(x).amax([2, 3]))


class _Residual(nn.Module):
    def __init__(self, channels, width, stride, spec):
        super().__init__()
        out = width * spec.expansion
        shapes = [(1, 1), (3, stride), (1, 1)] if spec.bottleneck else [(3, stride), (3, 1)]
        widths = [channels, *[width] * (len(shapes) - 1), out]
        self.count = len(shapes)
        for i, (kernel, step) in enumerate(shapes):
            conv = nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Temporal(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x, seg_num):
        clip = x.unflatten(0, (-1, seg_num)).transpose(1, 2)  # [B*T, C, h, w] -> [B, C, T, h, w]
        return (self.bn(F.relu(self.conv(clip))) + clip).transpose(1, 2).flatten(0, 1)


class _Xception(nn.Module):
    def __init__(self, channels):
        super().__init__()
        out = channels // 2
        self.bn = nn.BatchNorm2d(channels)
        self.att_conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels)
        self.att_2 = nn.Conv2d(channels, out, 1)
        self.bndw = nn.BatchNorm2d(out)
        self.att1 = nn.Conv2d(out, out, (3, 1), padding=(1, 0), groups=out)
        self.att1_2 = nn.Conv2d(out, out, 1)
        self.dw = nn.Conv2d(channels, out, 1)
        self.bn2 = nn.BatchNorm2d(out)

    def forward(self, x):
        z = self.bn(x)
        y = self.att1_2(self.att1(F.relu(self.bndw(self.att_2(self.att_conv(z))))))
        return F.relu(self.bn2(y + self.dw(z)))
