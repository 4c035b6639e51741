"""Convert sampling at given points to one GRID_SAMPLE layer."""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.checks import has_layer, one_floating_type
from ..conversion.context import Context
from ..registry import converts

aten = torch.ops.aten

_INTERPOLATIONS = ("LINEAR", "NEAREST", "CUBIC")
_PADDINGS = ("FILL", "CLAMP", "REFLECT")
"""The names of both modes, which torch passes as numbers."""


def _supported(input: torch.Tensor, grid: torch.Tensor) -> str | None:
    if input.dim() != 4:
        return f"rank {input.dim()} is not 4"
    return one_floating_type(input=input, grid=grid)


@converts(
    aten.grid_sampler.default,
    aten.grid_sampler_2d.default,
    check=(has_layer("add_grid_sample"), _supported),
)
def grid_sampler(
    ctx: Context,
    input: Any,
    grid: Any,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Any:
    """grid_sampler(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, ...)"""
    layer = ctx.net.add_grid_sample(input, grid)
    interpolation = _INTERPOLATIONS[interpolation_mode]
    layer.interpolation_mode = getattr(ctx.trt.InterpolationMode, interpolation)
    layer.sample_mode = getattr(ctx.trt.SampleMode, _PADDINGS[padding_mode])
    layer.align_corners = align_corners
    return layer.get_output(0)
