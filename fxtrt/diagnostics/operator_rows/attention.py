"""Rows of converters/attention.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T

aten = torch.ops.aten
sdpa = aten.scaled_dot_product_attention.default
F16, BOOL = torch.float16, torch.bool

Q = T((2, 3, 5, 8))
KV = T((2, 3, 7, 8))
SQUARE = (KV, KV, KV)
MASKED_ROWS = torch.ones(5, 7, dtype=BOOL)
MASKED_ROWS[2] = False
MASKED_ROWS[1, 3:] = False
HIDING = torch.zeros(5, 7).masked_fill(~MASKED_ROWS, -math.inf)

ROWS = [
    OpRow(sdpa, (Q, KV, KV)),
    OpRow(sdpa, (Q, KV, KV), {"scale": 0.3}, dynamic=True, name="scale"),
    OpRow(sdpa, (Q, KV, KV), {"scale": 1.0}, name="scale-1"),
    OpRow(sdpa, (T((5, 8)), T((7, 8)), T((7, 4))), name="2d"),
    OpRow(sdpa, (Q, KV, KV, T((5, 7), BOOL)), name="bool-mask"),
    OpRow(sdpa, (Q, KV, KV, T((2, 1, 5, 7))), name="float-mask"),
    OpRow(sdpa, (Q, KV, KV, MASKED_ROWS), name="weight-mask-hides-rows"),
    OpRow(sdpa, (Q, KV, KV, HIDING), name="float-weight-mask-hides-rows"),
    OpRow(sdpa, (Q, KV, KV, MASKED_ROWS[3:4]), name="weight-mask"),
    OpRow(
        sdpa,
        (Q, KV, KV, T((5, 1), BOOL)),
        {"scale": 0.5},
        name="bool-mask-hides-rows",
        dynamic=True,
    ),
    OpRow(
        sdpa,
        (Q, KV, KV, T((5, 7), values=tuple(HIDING.flatten().tolist()))),
        name="float-mask-hides-rows",
    ),
    OpRow(sdpa, SQUARE, {"is_causal": True}, name="causal"),
    OpRow(sdpa, (Q, KV, KV), {"is_causal": True}, name="causal-wide"),
    OpRow(sdpa, tuple(T((2, 3, 6, 8), F16) for _ in range(3)), name="float16", tolerance=5e-3),
    OpRow(sdpa, (Q, KV, KV, None, 0.5), name="dropout", rejected="dropout_p=0.5"),
    OpRow(
        sdpa,
        (T((2, 4, 5, 8)), T((2, 2, 7, 8)), T((2, 2, 7, 8))),
        {"enable_gqa": True},
        name="gqa",
        rejected="2 key heads among 4",
    ),
]
