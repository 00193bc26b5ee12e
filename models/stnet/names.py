"""Table between the original's parameter names and structured names, for every depth.

Example: `res2a_branch2b_weights` <-> `layer1.0.conv2.weight`.
"""

from __future__ import annotations

from stnet.models.stnet.depths import DEPTHS

_CONV2D_BN = {"scale": "weight", "offset": "bias", "mean": "_mean", "variance": "_variance"}
_AUTO_BN = {"w_0": "weight", "b_0": "bias", "w_1": "_mean", "w_2": "_variance"}
_AUTO_CONV = {"w_0": "weight", "b_0": "bias"}


def original_to_structured(depth: int) -> dict[str, str]:
    """Original name -> structured name of every parameter and moving statistic, for a ResNet depth."""
    return {**backbone_names(depth), **head_names(depth)}


def structured_to_original(depth: int) -> dict[str, str]:
    """Structured name -> original name, likewise."""
    return {ours: theirs for theirs, ours in original_to_structured(depth).items()}


def backbone_names(depth: int) -> dict[str, str]:
    """Names of the backbone, which an ImageNet ResNet shares with StNet."""
    names = {"conv1_weights": "conv1.weight", **_bn("bn_conv1_{}", "bn1", _CONV2D_BN)}
    spec = DEPTHS[depth]
    for stage, blocks in enumerate(spec.blocks, start=2):
        numbered = depth in (101, 152) and stage == 4  # 4a, 4b1, 4b2, ...; others are 4a, 4b, 4c, ...
        for block in range(blocks):
            theirs = f"{stage}b{block}" if numbered and block else f"{stage}{chr(ord('a') + block)}"
            ours = f"layer{stage - 1}.{block}"
            for i in range(spec.convs):
                names[f"res{theirs}_branch2{'abc'[i]}_weights"] = f"{ours}.conv{i + 1}.weight"
                names.update(_bn(f"bn{theirs}_branch2{'abc'[i]}_{{}}", f"{ours}.bn{i + 1}", _CONV2D_BN))
            if block == 0 and (stage > 2 or spec.bottleneck):
                names[f"res{theirs}_branch1_weights"] = f"{ours}.downsample.0.weight"
                names.update(_bn(f"bn{theirs}_branch1_{{}}", f"{ours}.downsample.1", _CONV2D_BN))
    return names


def head_names(depth: int) -> dict[str, str]:
    """Names of the temporal blocks, the Xception block and fc."""
    names: dict[str, str] = {}
    for i, number in enumerate(_temporal_bn_numbers(depth)):
        names.update(_bn(f"conv3d_{i}.{{}}", f"temporal{i + 1}.conv", _AUTO_CONV))
        names.update(_bn(f"batch_norm_{number}.{{}}", f"temporal{i + 1}.bn", _AUTO_BN))
    for bn in ("bn", "bndw", "bn2"):
        names.update(_bn(f"xception_{bn}.{{}}", f"xception.{bn}", _AUTO_BN))
    for conv in ("att_conv", "att_2", "att1", "att1_2", "dw"):
        names.update(_bn(f"xception_{conv}.{{}}", f"xception.{conv}", _AUTO_CONV))
    names.update(_bn("fc_0.{}", "fc", _AUTO_CONV))
    return names


def _bn(theirs: str, ours: str, suffixes: dict[str, str]) -> dict[str, str]:
    return {theirs.format(suffix): f"{ours}.{name}" for suffix, name in suffixes.items()}


def _temporal_bn_numbers(depth: int) -> tuple[int, int]:
    """Numbers of the temporal batch norms: the counts of those that the original built before."""
    spec = DEPTHS[depth]
    shortcut = [int(stage > 0 or spec.bottleneck) for stage in range(4)]
    per_stage = [blocks * spec.convs + shortcut[i] for i, blocks in enumerate(spec.blocks)]
    first = 1 + per_stage[0] + per_stage[1]
    return first, first + 1 + per_stage[2]
