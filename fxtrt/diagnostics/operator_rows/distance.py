"""Rows of converters/distance.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T

aten = torch.ops.aten
cdist = aten._cdist_forward.default

A, B = T((2, 5, 3)), T((2, 4, 3))
F64, INF = torch.float64, math.inf

ROWS = [
    OpRow(cdist, (A, B, 2.0, None), dynamic=True, float16=False),
    OpRow(cdist, (T((5, 3)), T((4, 3)), 1.0, None), dynamic=True, name="1", float16=False),
    OpRow(cdist, (T((2, 1, 5, 3)), B, 2.0, None), dynamic=True, name="ranks", float16=False),
    OpRow(cdist, (A, B, INF, None), dynamic=True, name="inf", float16=False),
    OpRow(cdist, (T((30, 3)), T((40, 3)), 2.0, 2), name="long", float16=False),
    OpRow(
        cdist,
        (T((1, 3), values=(1.0, math.nan, INF)), T((2, 3)), 2.0, None),
        name="nan",
        float16=False,
    ),
    OpRow(cdist, (A, B, 3.0, None), name="x", rejected="p=3.0 is not"),
    OpRow(
        cdist,
        (T((5, 3), torch.float16), T((4, 3), torch.float16), 2.0, None),
        name="half",
        rejected="torch.float16",
    ),
]
