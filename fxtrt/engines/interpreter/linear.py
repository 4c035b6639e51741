"""Execute layers of matrix algebra: MATRIX_MULTIPLY and EINSUM."""

from __future__ import annotations

import torch
from torch import Tensor

from ..plugins import STAND_IN
from .layers import (
    Compute,
    Layer,
    layer,
)
from .roi_align import roi_align


@layer("MATRIX_MULTIPLY", "IMatrixMultiplyLayer")
def matrix_multiply(layer: Layer) -> Compute:
    op0, op1 = layer.raw.op0.name, layer.raw.op1.name

    def compute(a: Tensor, b: Tensor) -> Tensor:
        a = a.mT if op0 == "TRANSPOSE" else a
        b = b.mT if op1 == "TRANSPOSE" else b
        # A VECTOR operand is a batch of vectors along its leading axes, unlike torch's vectors.
        a = a.unsqueeze(-2) if op0 == "VECTOR" else a
        b = b.unsqueeze(-1) if op1 == "VECTOR" else b
        product = torch.matmul(a, b)
        product = product.squeeze(-1) if op1 == "VECTOR" else product
        if op0 == "VECTOR":
            product = product.squeeze(-1 if op1 == "VECTOR" else -2)
        return product

    return compute


@layer("EINSUM", "IEinsumLayer")
def einsum(layer: Layer) -> Compute:
    if layer.raw.metadata == STAND_IN:
        return roi_align
    equation = layer.raw.equation
    return lambda *tensors: torch.einsum(equation, *tensors)
