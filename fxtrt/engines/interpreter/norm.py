"""Execute layers that normalize: NORMALIZATION and LRN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    layer,
)
from .reduce import axes_of


@layer("NORMALIZATION", "INormalizationLayer")
def normalization(layer: Layer) -> Compute:
    raw = layer.raw
    axes, groups, epsilon = axes_of(raw.axes, layer.rank()), raw.num_groups, raw.epsilon

    def compute(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        wide, scale, bias = x.float(), scale.float(), bias.float()
        if groups == 1:
            return (_normalize(wide, axes, epsilon) * scale + bias).to(x.dtype)
        grouped = wide.reshape(x.shape[0], groups, -1)
        normal = _normalize(grouped, [2], epsilon)
        if scale.shape[1] == x.shape[1]:
            return (normal.reshape(x.shape) * scale + bias).to(x.dtype)
        per_group = (1, groups, 1)
        result = normal * scale.reshape(per_group) + bias.reshape(per_group)
        return result.reshape(x.shape).to(x.dtype)

    return compute


def _normalize(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(axes, keepdim=True) + epsilon)


@layer("LRN", "ILRNLayer")
def lrn(layer: Layer) -> Compute:
    raw = layer.raw
    size, alpha, beta, k = raw.window_size, raw.alpha, raw.beta, raw.k

    def compute(x: Tensor) -> Tensor:
        # The window lies along the third axis from the end, and alpha is divided by its size.
        squares = x.square().unsqueeze(-4)
        pads = (0, 0, 0, 0, size // 2, size // 2)
        mean = F.avg_pool3d(F.pad(squares, pads), (size, 1, 1), stride=1).squeeze(-4)
        return x / torch.pow(k + alpha * mean, beta)

    return compute
