"""Calls of realistic size that PyTorch computes in float32 where they are of halves, rounding once.

They have 1,000 to 10,000 elements to add up, with a mean that is not zero, so that a half would not
do as an accumulator.
"""

from __future__ import annotations

from typing import Any

import torch
from oprow import OpRow, T
from torch._ops import OpOverload

aten = torch.ops.aten

LONG = T((4, 4096), low=0.0, high=1.0)
SIGNED = T((4, 4096))
NEAR_ONE = T((4, 4096), low=0.97, high=1.03)
POSITIVE = T((4, 4096), low=0.01, high=15.0)
SHARE = T((4, 4096), low=0.02, high=0.98)
IMAGE = T((2, 16, 40, 40), low=0.0, high=2.0)
VOLUME = T((1, 8, 12, 12, 12), low=0.0, high=2.0)
LINE = T((2, 16, 1200), low=0.0, high=2.0)
TOKENS = T((4, 64, 1024), low=-1.0, high=3.0)
HEADS = T((1, 4, 197, 64), low=-1.5, high=2.0)


def _weight(*shape: int, low: float = -1.0, high: float = 1.0) -> T:
    return T(shape, low=low, high=high, weight=True)


def row(target: OpOverload, *args: Any, **options: Any) -> OpRow:
    return OpRow(target, args, **options)


def first(target: OpOverload, *args: Any, **options: Any) -> OpRow:
    """Return a row for the first output of an operator with several."""
    return OpRow(target, args, call=lambda *args: target(*args)[0], **options)


REDUCTIONS = [
    row(aten.sum.default, LONG),
    row(aten.sum.dim_IntList, LONG, [1]),
    row(aten.mean.default, LONG),
    row(aten.mean.dim, LONG, [1], True),
    row(aten.prod.default, T((4096,), low=0.98, high=1.02)),
    row(aten.prod.dim_int, NEAR_ONE, 1),
    row(aten.cumsum.default, LONG, 1),
    row(aten.cumsum.default, SIGNED, 0, name="short"),
    *(
        row(target, LONG, [1])
        for target in (aten.var.correction, aten.std.correction, aten.var_mean.correction)
    ),
    row(aten.var.correction, T((4, 4096), low=7.0, high=9.0), [1], name="far-mean"),
    row(aten.logsumexp.default, SIGNED, [1]),
    *(
        row(aten.linalg_vector_norm.default, LONG, order, [1], name=str(order))
        for order in (1, 2, float("inf"))
    ),
]

SOFTMAXES = [
    row(aten.softmax.int, T((16, 2000), low=-8.0, high=8.0), 1),
    row(aten._softmax.default, T((16, 2000)), 1, False),
    row(aten.log_softmax.int, T((16, 2000)), 1),
    row(aten._log_softmax.default, T((16, 2000)), 1, False),
]

sdpa = aten.scaled_dot_product_attention.default
ATTENTION = [
    row(sdpa, HEADS, HEADS, HEADS),
    row(sdpa, HEADS, HEADS, HEADS, T((197, 197)), name="float-mask"),
    row(sdpa, HEADS, HEADS, HEADS, T((197, 197), torch.bool), name="bool-mask"),
    row(sdpa, HEADS, HEADS, HEADS, None, 0.0, True, name="causal"),
    OpRow(sdpa, (HEADS, HEADS, HEADS), {"scale": 1.0}, name="sharp"),
    row(sdpa, *[T((1, 2, 1200, 64), low=-1.5, high=2.0)] * 3, name="long"),
]

_STATISTICS = (
    _weight(16),
    _weight(16),
    _weight(16),
    _weight(16, low=0.1, high=2.0),
)
NORMS = [
    row(aten.layer_norm.default, TOKENS, [1024], _weight(1024), _weight(1024)),
    row(aten.layer_norm.default, TOKENS, [1024], name="plain"),
    first(aten.native_layer_norm.default, TOKENS, [1024], _weight(1024), _weight(1024), 1e-5),
    row(aten.group_norm.default, IMAGE, 4, _weight(16), _weight(16)),
    row(aten.group_norm.default, IMAGE, 1, _weight(16), _weight(16), name="one-group"),
    first(aten.native_group_norm.default, IMAGE, _weight(16), _weight(16), 2, 16, 1600, 4, 1e-5),
    row(
        aten.instance_norm.default,
        *(IMAGE, _weight(16), _weight(16), None, None, True, 0.1, 1e-5, True),
    ),
    row(aten.rms_norm.default, TOKENS, [1024], _weight(1024), 1e-5),
    first(
        aten._native_batch_norm_legit_no_training.default,
        *(IMAGE, *_STATISTICS, 0.1, 1e-5),
    ),
    first(aten._native_batch_norm_legit.default, IMAGE, *_STATISTICS, False, 0.1, 1e-5),
]

POOLINGS = [
    row(aten.avg_pool1d.default, LINE, [50], [25], [10]),
    row(aten.avg_pool2d.default, IMAGE, [20, 20], [10, 10], [5, 5]),
    row(aten.avg_pool2d.default, IMAGE, [8, 8], [4, 4], [0, 0], False, True, 5, name="divisor"),
    row(aten.avg_pool3d.default, VOLUME, [6, 6, 6], [3, 3, 3]),
    row(aten.adaptive_avg_pool1d.default, LINE, [7]),
    row(aten.adaptive_avg_pool2d.default, IMAGE, [1, 1]),
    row(aten.adaptive_avg_pool2d.default, IMAGE, [7, 7], name="uneven"),
    row(aten.adaptive_avg_pool2d.default, IMAGE, [2, 2], name="even"),
    row(aten._adaptive_avg_pool2d.default, IMAGE, [1, 1]),
    row(aten.adaptive_avg_pool3d.default, VOLUME, [1, 1, 1]),
    row(aten._adaptive_avg_pool3d.default, VOLUME, [2, 2, 2]),
]

MATRIX = T((64, 3000), low=-1.0, high=1.2)
SIDE = T((3000, 48), low=-1.0, high=1.2)
BATCH = (T((2, 32, 3000), low=-1.0, high=1.2), T((2, 3000, 24), low=-1.0, high=1.2))
VECTOR = T((3000,), low=-1.0, high=1.2)
PRODUCTS = [
    row(aten.linear.default, MATRIX, _weight(48, 3000, high=1.2), _weight(48, low=10.0, high=90.0)),
    row(aten.linear.default, MATRIX, _weight(48, 3000), name="no-bias"),
    row(aten.mm.default, MATRIX, SIDE),
    row(aten.bmm.default, *BATCH),
    row(aten.matmul.default, *BATCH),
    row(aten.mv.default, MATRIX, VECTOR),
    row(aten.dot.default, VECTOR, VECTOR),
    row(aten.addmm.default, T((48,), low=10.0, high=90.0), MATRIX, SIDE),
    OpRow(
        aten.addmm.default,
        (T((48,), low=10.0, high=90.0), MATRIX, SIDE),
        {"beta": 0.7, "alpha": 0.3},
        name="scaled",
    ),
    row(aten.addmv.default, T((64,), low=10.0, high=90.0), MATRIX, VECTOR),
    row(aten.baddbmm.default, T((2, 32, 24), low=10.0, high=90.0), *BATCH),
    row(aten.einsum.default, "bij,bjk->bik", list(BATCH)),
    row(
        aten.convolution.default,
        *(T((1, 256, 14, 14), low=-1.0, high=1.2), _weight(8, 256, 3, 3), _weight(8, high=90.0)),
        *([1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    ),
    row(
        aten.convolution.default,
        *(T((1, 256, 7, 7), low=-1.0, high=1.2), _weight(256, 8, 4, 4), _weight(8, high=90.0)),
        *([2, 2], [1, 1], [1, 1], True, [0, 0], 1),
        name="transposed",
    ),
]

_CURVES = (
    *(aten.gelu, aten.hardsigmoid, aten.hardswish, aten.silu, aten.mish, aten.log_sigmoid),
    *(aten.softplus, aten.selu, aten.elu, aten.celu, aten.leaky_relu, aten.sigmoid, aten.tanh),
    *(aten.exp, aten.expm1, aten.erf, aten.sin, aten.cos, aten.atan, aten.asinh, aten.sinh),
    *(aten.cosh, aten.square, aten.frac, aten.tan),
)
_OF_POSITIVE = (
    *(aten.log, aten.log2, aten.log10, aten.log1p, aten.sqrt, aten.rsqrt, aten.reciprocal),
)
CURVES = [
    *(row(target.default, SIGNED) for target in _CURVES),
    *(row(target.default, POSITIVE) for target in _OF_POSITIVE),
    *(row(target.default, SHARE) for target in (aten.asin, aten.acos, aten.atanh)),
    row(aten.acosh.default, T((4, 4096), low=1.0, high=9.0)),
    row(aten.log1p.default, T((4, 4096), low=-0.4, high=0.4), name="near-zero"),
    row(aten.expm1.default, T((4, 4096), low=-0.1, high=0.1), name="near-zero"),
    OpRow(aten.gelu.default, (SIGNED,), {"approximate": "tanh"}, name="tanh"),
    row(aten.elu.default, SIGNED, 1.3, 1.1, 0.7, name="scaled"),
    row(aten.celu.default, SIGNED, 1.7, name="alpha"),
    row(aten.softplus.default, SIGNED, 2.5, name="beta"),
    first(aten.log_sigmoid_forward.default, SIGNED),
    row(aten.glu.default, SIGNED, 1),
    row(aten.prelu.default, T((4, 16, 64)), _weight(16)),
    row(aten._prelu_kernel.default, T((4, 16, 64)), _weight(1, 16, 1)),
    *(
        row(aten.pow.Tensor_Scalar, POSITIVE, exponent, name=f"{exponent}")
        for exponent in (2, 3, 4, -1, 0.5, -0.5, 1.7, 0.3333)
    ),
    row(aten.pow.Scalar, 1.7, SIGNED),
    row(aten.pow.Tensor_Tensor, T((4, 4096), low=0.5, high=3.0), SIGNED),
]

X, Y, Z = SIGNED, T((4, 4096), low=0.5, high=3.0), T((4, 4096), low=-2.0, high=2.5)
ARITHMETIC = [
    row(aten.add.Tensor, X, Y),
    OpRow(aten.add.Tensor, (X, Y), {"alpha": 0.3}, name="alpha"),
    OpRow(aten.sub.Tensor, (X, Y), {"alpha": 0.3}, name="alpha"),
    row(aten.add.Scalar, X, 0.3),
    row(aten.sub.Scalar, X, 0.3),
    row(aten.mul.Scalar, X, 0.3),
    row(aten.mul.Tensor, X, 0.3, name="number"),
    row(aten.rsub.Scalar, X, 0.3, 0.7),
    OpRow(aten.rsub.Tensor, (X, Y), {"alpha": 0.3}),
    OpRow(aten.sub.Tensor, (X, Y)),
    row(aten.maximum.default, X, Y),
    row(aten.minimum.default, X, Y),
    row(aten.mul.Tensor, X, Y),
    row(aten.div.Tensor, X, Y),
    row(aten.div.Scalar, X, 0.3),
    row(aten.lerp.Scalar, X, Y, 0.3),
    row(aten.lerp.Scalar, X, Y, 0.8, name="far"),
    row(aten.lerp.Tensor, X, Y, T((4, 4096), low=0.0, high=1.0)),
    OpRow(aten.addcmul.default, (X, Y, Z), {"value": 0.3}),
    OpRow(aten.addcdiv.default, (X, Z, Y), {"value": 0.3}),
    row(aten.remainder.Scalar, POSITIVE, 4.0),
    row(aten.fmod.Scalar, POSITIVE, 4.0),
]

RESIZES = [
    row(aten.upsample_bilinear2d.vec, IMAGE, [67, 93], False, None),
    row(aten.upsample_bicubic2d.vec, IMAGE, [67, 93], False, None),
    row(aten.upsample_linear1d.vec, LINE, [1700], True, None),
    row(aten.upsample_linear1d.default, LINE, [1700], False),
    row(aten.upsample_trilinear3d.vec, VOLUME, [17, 15, 19], False, None),
    row(aten.upsample_trilinear3d.default, VOLUME, [17, 15, 19], False),
    row(aten.grid_sampler.default, IMAGE, T((2, 30, 30, 2), low=-0.9, high=0.9), 0, 0, False),
    row(aten.grid_sampler_2d.default, IMAGE, T((2, 30, 30, 2), low=-0.9, high=0.9), 0, 0, False),
]

ROWS = [
    *REDUCTIONS,
    *SOFTMAXES,
    *ATTENTION,
    *NORMS,
    *POOLINGS,
    *PRODUCTS,
    *CURVES,
    *ARITHMETIC,
    *RESIZES,
]
