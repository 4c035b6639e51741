"""Rows of converters/grid_sample.py."""

from __future__ import annotations

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((2, 3, 7, 9))
GRID = T((2, 5, 6, 2), low=-1.3, high=1.3)

ROWS = [
    OpRow(
        aten.grid_sampler.default,
        (X, GRID, mode, padding, align),
        dynamic=True,
        tolerance=1e-4,
        name=f"{mode}{padding}-{'corners' if align else 'centres'}",
    )
    for mode in (0, 1, 2)
    for padding in (0, 1, 2)
    for align in (False, True)
] + [
    OpRow(aten.grid_sampler_2d.default, (X, GRID, 0, 0, False), tolerance=1e-4, dynamic=True),
    OpRow(
        aten.grid_sampler.default,
        (T((2, 3, 7, 9), torch.float16), T((2, 5, 6, 2), torch.float16, -1.0, 1.0), 0, 0, True),
        tolerance=1e-2,
        name="fp16",
    ),
    OpRow(
        aten.grid_sampler.default,
        (T((1, 2, 4, 5, 6)), T((1, 2, 3, 4, 3)), 0, 0, False),
        name="volume",
        rejected="rank 5 is not 4",
    ),
]
