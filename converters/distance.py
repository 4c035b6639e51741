"""Convert distances between the rows of two matrices to a reduction of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..graph.sizes import Size
from ..registry import converts
from .reduction import reduce
from .shape import unsqueeze_at

aten = torch.ops.aten

_SUPPORTED = (1.0, 2.0, math.inf)


def _known_norm(x1: torch.Tensor, p: float, compute_mode: int | None) -> str | None:
    """Decline norms other than 1, 2 and infinity.

    `compute_mode` only says whether torch may use a matrix product, which is less exact.
    """
    if x1.dtype != torch.float32:
        return f"the tensor is of {x1.dtype}"
    return None if p in _SUPPORTED else f"p={p} is not 1, 2 or infinity"


@converts(aten._cdist_forward.default, check=_known_norm)
def cdist(ctx: Context, x1: Any, x2: Any, p: float) -> Any:
    """_cdist_forward(Tensor x1, Tensor x2, float p, int? compute_mode) -> Tensor"""
    rank = ctx.output.dim()
    rows = _between(ctx, x1, ctx.fake("x1").shape, rank - 1)
    columns = _between(ctx, x2, ctx.fake("x2").shape, rank - 2)
    difference = ctx.elementwise("SUB", rows, columns)
    if p == 2:
        squares = ctx.elementwise("PROD", difference, difference)
        return ctx.unary("SQRT", reduce(ctx, "SUM", squares, rank))
    operation = "SUM" if p == 1 else "MAX"
    return reduce(ctx, operation, ctx.unary("ABS", difference), rank)


def _between(ctx: Context, x: Any, shape: Sequence[Size], dim: int) -> Any:
    """Raise `x` to the rank of the output, with a new dimension at `dim`."""
    rank = ctx.output.dim()
    raised = [*[1] * (rank - len(shape)), *shape]
    return unsqueeze_at(ctx, ctx.raise_rank(x, rank), raised, dim)
