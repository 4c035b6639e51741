"""Lists, as data, which operators are quantized, what shares scales, and what stays float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch._ops import OpOverload

__all__ = [
    "FEATURES",
    "FOREIGN",
    "OTHER_PRODUCTS",
    "PRODUCTS",
    "RESIDUALS",
    "SHARES",
    "STEM_CHANNELS",
    "Product",
]

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Product:
    """The positions of a product's operands.

    x:       the position of the argument that is quantized per tensor.
    weight:  the position of the weight, which is quantized per channel.
    axis:    the dimension of the weight that counts the output's channels.
    """

    x: int
    weight: int
    axis: int


PRODUCTS: Mapping[OpOverload, Product] = {
    aten.convolution.default: Product(0, 1, 0),
    aten.linear.default: Product(0, 1, 0),
    aten.addmm.default: Product(1, 2, 1),
    aten.mm.default: Product(0, 1, 1),
}
"""The operators that compute in int8, if their weight is a constant."""

OTHER_PRODUCTS = frozenset(
    {
        aten.bmm.default,
        aten.baddbmm.default,
        aten.matmul.default,
        aten.mv.default,
        aten.einsum.default,
        aten.scaled_dot_product_attention.default,
    }
)
"""Products of two computed tensors: they stay float16, but a layer before one is not the last."""

RESIDUALS = frozenset({aten.add.Tensor})
"""A sum whose one operand is a quantized product: TensorRT adds the other one in the product's
kernel if that is quantized too."""

SHARES = frozenset(
    {
        aten.cat.default,
        aten.max_pool2d.default,
        aten.max_pool3d.default,
    }
)
"""Operators that only choose among the numbers they are given, which then need one scale. Their
inputs are quantized too where all that read the result read it quantized."""

STEM_CHANNELS = 4
"""The most channels that an image has. The first convolution reads one: it is cheap, and its
errors reach everything."""

FEATURES: Mapping[str, str] = {
    "fxtrt::multilevel_roi_align": "features",
    "fxtrt::detectron2_roi_align_rotated": "input",
    "torchvision::roi_align": "input",
    "torchvision::roi_pool": "input",
    "torchvision::ps_roi_align": "input",
    "torchvision::deform_conv2d": "input",
}
"""The argument through which an operator of detectors hands features on. All other arguments of
such operators are boxes, scores or offsets: the products that give these are among the last."""

FOREIGN = ("fxtrt", "torchvision", "detectron2")
"""The namespaces of the operators of detectors."""
