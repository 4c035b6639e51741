"""Convert matrix products to one MATRIX_MULTIPLY, transposed and broadcast by its own flags.

Products of float16 and bfloat16 are summed in float32, as in PyTorch. TensorRT leaves that to its
kernels, unless a strongly typed network casts the operands before and the product after: it fuses
these casts into one kernel that reads the narrow type. A weakly typed network would compute all of
it in float32.
"""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import in_float32, wide
from ..graph.fake_quantize import is_quantizer
from ..registry import converts
from .elementwise import arithmetic, scaled

__all__ = ["floats_only", "multiply"]

aten = torch.ops.aten


def multiply(ctx: Context, a: Any, b: Any, transpose_b: bool = False) -> Any:
    """Multiply ITensors or weights of any ranks, as `torch.matmul` reads them."""
    operations = ctx.trt.MatrixOperation
    rank_a, rank_b = len(a.shape), len(b.shape)
    # Each operand gets the batch dimensions of the other. A VECTOR has one dimension behind them, a
    # matrix two.
    batch = max(rank_a - 2, rank_b - 2, 0)
    a, op_a = _operand(ctx, a, batch, operations.NONE)
    b, op_b = _operand(ctx, b, batch, operations.TRANSPOSE if transpose_b else operations.NONE)
    dtype = ctx.dtype(a)
    if not ctx.features.weakly_typed and not _is_quantized(ctx):
        a, b = ctx.cast(a, wide(dtype)), ctx.cast(b, wide(dtype))
    return ctx.cast(ctx.net.add_matrix_multiply(a, op_a, b, op_b).get_output(0), dtype)


def _is_quantized(ctx: Context) -> bool:
    """Return whether int8 values are multiplied: a cast would hide that from TensorRT."""
    return sum(map(is_quantizer, ctx.node.all_input_nodes)) > 1


def _operand(ctx: Context, x: Any, batch: int, operation: Any) -> tuple[Any, Any]:
    dtype = x.dtype if isinstance(x, torch.Tensor) else ctx.dtype(x)
    is_vector = len(x.shape) == 1
    (tensor,) = ctx.operands(x, dtype=dtype, rank=batch + (1 if is_vector else 2))
    return tensor, ctx.trt.MatrixOperation.VECTOR if is_vector else operation


def floats_only(node: torch.fx.Node) -> str | None:
    """Decline products of integers: MATRIX_MULTIPLY and EINSUM take floating-point tensors only."""
    dtype = node.meta["val"].dtype
    if dtype.is_floating_point:
        return None
    return f"TensorRT multiplies no matrices of {dtype}"


@converts(aten.linear.default, check=floats_only, constants=("weight", "bias"))
def linear(ctx: Context, input: Any, weight: Any, bias: Any) -> Any:
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    # A weight of one dimension gives one output, whose dimension goes.
    product = multiply(ctx, input, weight, transpose_b=len(weight.shape) == 2)
    return product if bias is None else arithmetic(ctx, "SUM", product, bias)


@converts(
    aten.mm.default,
    aten.bmm.default,
    aten.matmul.default,
    aten.mv.default,
    aten.dot.default,
    check=floats_only,
    constants=("x", "other"),
    renamed={"mat2": "other", "vec": "other", "tensor": "other"},
)
def product(ctx: Context, x: Any, other: Any) -> Any:
    """mm(Tensor self, Tensor mat2) -> Tensor, and the like"""
    return multiply(ctx, x, other)


@converts(
    aten.addmm.default,
    aten.addmv.default,
    aten.baddbmm.default,
    check=floats_only,
    constants=("x", "a", "b"),
    renamed={"mat1": "a", "mat2": "b", "mat": "a", "vec": "b", "batch1": "a", "batch2": "b"},
)
def added_product(ctx: Context, x: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Any:
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor,
    and the like"""
    return _added(ctx, x, multiply(ctx, a, b), beta, alpha)


def _added(ctx: Context, x: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """Compute beta * x + alpha * product; a beta of 0 hides even the NaNs of `x`."""
    if (beta, alpha) == (1, 1):
        return arithmetic(ctx, "SUM", x, product)
    return _scaled_sum(ctx, x, product, beta, alpha)


@in_float32
def _scaled_sum(ctx: Context, x: Any, product: Any, beta: Any, alpha: Any) -> Any:
    product = scaled(ctx, product, alpha)
    return product if beta == 0 else arithmetic(ctx, "SUM", scaled(ctx, x, beta), product)
