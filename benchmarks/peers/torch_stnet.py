"""StNet in PyTorch, on torchvision's ResNet, with our parameter names. For comparison only."""

from __future__ import annotations

import pickle

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from stnet.models.stnet.depths import DEPTHS


def load(path: str, depth: int, threads: int) -> StNet:
    """Load the weights of benchmarks.network.write_weights into the network."""
    torch.set_num_threads(threads)
    with open(path, "rb") as file:
        tensors = {name: torch.tensor(value) for name, value in pickle.load(file).items() if "@@" not in name}
    tensors["fc.weight"] = tensors["fc.weight"].T
    names = {name: name.replace("._mean", ".running_mean").replace("._variance", ".running_var") for name in tensors}
    network = StNet(depth)
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **{names[name]: value for name, value in tensors.items()}})
    return network


class StNet(ResNet):
    """StNet, equal to stnet.models.stnet.network.StNet: [B, T, 3 * seglen, H, W] -> logits [B, num_classes]."""

    def __init__(self, depth: int = 50, num_classes: int = 400, seglen: int = 5) -> None:
        super().__init__(Bottleneck if DEPTHS[depth].bottleneck else BasicBlock, list(DEPTHS[depth].blocks))
        channels = self.inplanes
        self.conv1 = nn.Conv2d(3 * seglen, 64, 7, 2, 3, bias=False)
        self.temporal1, self.temporal2 = _Temporal(channels // 4), _Temporal(channels // 2)
        self.xception, self.fc = _Xception(channels), nn.Linear(channels // 2, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """[B, T, 3 * seglen, H, W] float -> logits [B, num_classes]."""
        seg_num = clips.shape[1]
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips.flatten(0, 1)))))
        x = self.temporal1(self.layer2(self.layer1(x)), seg_num)
        x = self.layer4(self.temporal2(self.layer3(x), seg_num))
        x = x.mean([2, 3]).unflatten(0, (-1, seg_num)).transpose(1, 2).unsqueeze(-1)  # [B, C, T, 1]
        return self.fc(self.xception(x).amax([2, 3]))


class _Temporal(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0)), nn.BatchNorm3d(channels)

    def forward(self, x: Tensor, seg_num: int) -> Tensor:
        clip = x.unflatten(0, (-1, seg_num)).transpose(1, 2)  # [B*T, C, h, w] -> [B, C, T, h, w]
        return (self.bn(F.relu(self.conv(clip))) + clip).transpose(1, 2).flatten(0, 1)


class _Xception(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        out = channels // 2
        self.bn, self.bndw, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.att_conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels)
        self.att_2, self.dw = nn.Conv2d(channels, out, 1), nn.Conv2d(channels, out, 1)
        self.att1, self.att1_2 = nn.Conv2d(out, out, (3, 1), padding=(1, 0), groups=out), nn.Conv2d(out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn(x)
        y = self.att1_2(self.att1(F.relu(self.bndw(self.att_2(self.att_conv(z))))))
        return F.relu(self.bn2(y + self.dw(z)))
