"""Rows of converters/unary.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V

aten = torch.ops.aten
F16, I32, I64, BOOL = torch.float16, torch.int32, torch.int64, torch.bool

X = T((2, 3, 4))
UNIT = T((2, 3), low=-0.9, high=0.9)
POSITIVE = T((2, 3), low=0.05, high=9.0)
ABOVE_ONE = T((2, 3), low=1.1, high=9.0)
IX = T((2, 3), I64)
COUNTS = T((2, 3), I32, 1, 9)
TIES = V(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1.49)
TINY = T((8,), low=-1e-6, high=1e-6)
SPECIAL = V(math.nan, math.inf, -math.inf, 0.0, -1.5, 3e38)

_ANY = (
    aten.exp,
    aten.sin,
    aten.cos,
    aten.tan,
    aten.atan,
    aten.sinh,
    aten.cosh,
    aten.asinh,
    aten.erf,
    aten.expm1,
    aten.abs,
    aten.neg,
    aten.sign,
    aten.sgn,
    aten.floor,
    aten.ceil,
    aten.round,
    aten.trunc,
)
_POSITIVE = (aten.log, aten.log2, aten.log10, aten.log1p, aten.sqrt, aten.rsqrt, aten.reciprocal)
_UNIT = (aten.asin, aten.acos, aten.atanh)
_OF_INTEGERS = (aten.abs, aten.neg, aten.sign, aten.sgn, aten.floor, aten.ceil, aten.trunc)

ROWS = [
    *(OpRow(op.default, (X,), dynamic=True) for op in _ANY),
    *(OpRow(op.default, (POSITIVE,), dynamic=True) for op in _POSITIVE),
    *(OpRow(op.default, (UNIT,), dynamic=True) for op in _UNIT),
    OpRow(aten.acosh.default, (ABOVE_ONE,), dynamic=True),
    *(OpRow(op.default, (IX,), name="int") for op in (aten.exp, aten.sin, aten.erf, aten.expm1)),
    *(OpRow(op.default, (COUNTS,), name="int") for op in _POSITIVE),
    *(OpRow(op.default, (IX,), name="int") for op in (*_OF_INTEGERS, aten.round)),
    OpRow(aten.exp.default, (T((), I64),), name="0d-int"),
    OpRow(aten.sqrt.default, (T((3,), BOOL),), name="bool"),
    OpRow(aten.rsqrt.default, (T((4,), F16, 0.1, 4.0),), name="float16", tolerance=2e-3),
    OpRow(aten.sgn.default, (T((3,), BOOL),), name="bool", rejected="bools"),
    OpRow(aten.round.default, (TIES,), name="ties"),
    OpRow(aten.trunc.default, (TIES,), name="ties"),
    OpRow(aten.expm1.default, (TINY,), name="tiny", tolerance=1e-12),
    OpRow(aten.log1p.default, (TINY,), name="tiny", tolerance=1e-12),
    OpRow(aten.log1p.default, (V(-0.4, -0.1, 0.1, 0.4),), name="near"),
    OpRow(aten.frac.default, (X,), dynamic=True),
    OpRow(aten.frac.default, (IX,), name="int", rejected="int64"),
    *(
        OpRow(op.default, (SPECIAL,), name="special")
        for op in (aten.exp, aten.expm1, aten.log1p, aten.trunc, aten.frac)
    ),
    *(
        OpRow(op.default, (SPECIAL,), dynamic=True)
        for op in (aten.isnan, aten.isinf, aten.isfinite)
    ),
    OpRow(aten.isnan.default, (IX,), name="int"),
    OpRow(aten.isinf.default, (IX,), name="int", rejected="int64"),
    OpRow(aten.isfinite.default, (IX,), name="int", rejected="int64"),
]
