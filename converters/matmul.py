"""Matrix products: one MATRIX_MULTIPLY, transposed and broadcast by its own flags.

Products of halves are summed in float32, as in PyTorch. TensorRT leaves that to its kernels, unless
a strongly typed network casts the operands before and the product after: it fuses these casts into
one kernel that reads halves. A weakly typed network would compute all of it in float32.
"""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import in_float32, wide
from ..registry import converts
from .elementwise import arithmetic, scaled

__all__ = ["floats_only", "multiply"]

aten = torch.ops.aten


def multiply(ctx: Context, a: Any, b: Any, transpose_b: bool = False) -> Any:
    """MATRIX_MULTIPLY of ITensors or weights of any ranks, as `torch.matmul` reads them."""
    operations = ctx.trt.MatrixOperation
    rank_a, rank_b = len(a.shape), len(b.shape)
    # What a matrix of each operand would have on top of its batch dimensions: VECTOR has one less.
    batch = max(rank_a - 2, rank_b - 2, 0)
    a, op_a = _operand(ctx, a, batch, operations.NONE)
    b, op_b = _operand(ctx, b, batch, operations.TRANSPOSE if transpose_b else operations.NONE)
    dtype = ctx.dtype(a)
    if not ctx.features.weakly_typed:
        a, b = ctx.cast(a, wide(dtype)), ctx.cast(b, wide(dtype))
    return ctx.cast(ctx.net.add_matrix_multiply(a, op_a, b, op_b).get_output(0), dtype)


def _operand(ctx: Context, x: Any, batch: int, operation: Any) -> tuple[Any, Any]:
    dtype = x.dtype if isinstance(x, torch.Tensor) else ctx.dtype(x)
    is_vector = len(x.shape) == 1
    (tensor,) = ctx.operands(x, dtype=dtype, rank=batch + (1 if is_vector else 2))
    return tensor, ctx.trt.MatrixOperation.VECTOR if is_vector else operation


def floats_only(node: torch.fx.Node) -> str | None:
    """MATRIX_MULTIPLY and EINSUM take floating-point tensors only."""
    dtype = node.meta["val"].dtype
    if dtype.is_floating_point:
        return None
    return f"TensorRT multiplies no matrices of {dtype}"


@converts(aten.linear.default, check=floats_only, constants=("weight", "bias"))
def linear(ctx: Context, input: Any, weight: Any, bias: Any) -> Any:
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    # A weight of one dimension is one output, whose dimension goes.
    product = multiply(ctx, input, weight, transpose_b=len(weight.shape) == 2)
    return product if bias is None else arithmetic(ctx, "SUM", product, bias)


@converts(aten.mm.default, check=floats_only, constants=("x", "mat2"))
def mm(ctx: Context, x: Any, mat2: Any) -> Any:
    """mm(Tensor self, Tensor mat2) -> Tensor"""
    return multiply(ctx, x, mat2)


@converts(aten.bmm.default, check=floats_only, constants=("x", "mat2"))
def bmm(ctx: Context, x: Any, mat2: Any) -> Any:
    """bmm(Tensor self, Tensor mat2) -> Tensor"""
    return multiply(ctx, x, mat2)


@converts(aten.matmul.default, check=floats_only, constants=("x", "other"))
def matmul(ctx: Context, x: Any, other: Any) -> Any:
    """matmul(Tensor self, Tensor other) -> Tensor"""
    return multiply(ctx, x, other)


@converts(aten.mv.default, check=floats_only, constants=("x", "vec"))
def mv(ctx: Context, x: Any, vec: Any) -> Any:
    """mv(Tensor self, Tensor vec) -> Tensor"""
    return multiply(ctx, x, vec)


@converts(aten.dot.default, check=floats_only, constants=("x", "tensor"))
def dot(ctx: Context, x: Any, tensor: Any) -> Any:
    """dot(Tensor self, Tensor tensor) -> Tensor"""
    return multiply(ctx, x, tensor)


@converts(aten.addmm.default, check=floats_only, constants=("x", "mat1", "mat2"))
def addmm(ctx: Context, x: Any, mat1: Any, mat2: Any, beta: Any, alpha: Any) -> Any:
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return _added(ctx, x, multiply(ctx, mat1, mat2), beta, alpha)


@converts(aten.addmv.default, check=floats_only, constants=("x", "mat", "vec"))
def addmv(ctx: Context, x: Any, mat: Any, vec: Any, beta: Any, alpha: Any) -> Any:
    """addmv(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    return _added(ctx, x, multiply(ctx, mat, vec), beta, alpha)


@converts(aten.baddbmm.default, check=floats_only, constants=("x", "batch1", "batch2"))
def baddbmm(ctx: Context, x: Any, batch1: Any, batch2: Any, beta: Any, alpha: Any) -> Any:
    """baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1)"""
    return _added(ctx, x, multiply(ctx, batch1, batch2), beta, alpha)


def _added(ctx: Context, x: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """beta * x + alpha * product; a beta of 0 hides even the NaNs of `x`."""
    if (beta, alpha) == (1, 1):
        return arithmetic(ctx, "SUM", x, product)
    return _scaled_sum(ctx, x, product, beta, alpha)


@in_float32
def _scaled_sum(ctx: Context, x: Any, product: Any, beta: Any, alpha: Any) -> Any:
    product = scaled(ctx, product, alpha)
    return product if beta == 0 else arithmetic(ctx, "SUM", scaled(ctx, x, beta), product)
