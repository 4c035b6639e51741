"""Compute float16 and bfloat16 in float32, as PyTorch does: its kernels round once, at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from .context import Context

__all__ = ["in_float32", "wide"]

_HALVES = (torch.float16, torch.bfloat16)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that PyTorch computes and accumulates `dtype` in."""
    return torch.float32 if dtype in _HALVES else dtype


def in_float32(build: Callable[..., Any]) -> Callable[..., Any]:
    """Make a converter of several layers round to float16 or bfloat16 once, at its end.

    The converter sees a node of float32: its operands are cast before, its results after. In the
    narrow dtype each layer would round, and some would overflow where PyTorch does not.
    """

    @wraps(build)
    def widened(ctx: Context, *args: Any, **kwargs: Any) -> Any:
        narrow = ctx.output
        if not any(fake.dtype in _HALVES for fake in _tensors(narrow)):
            return build(ctx, *args, **kwargs)
        with ctx.giving(pytree.tree_map_only(torch.Tensor, _widened_fake, narrow)):
            args, kwargs = pytree.tree_map(lambda value: _widened(ctx, value), (args, kwargs))
            results = build(ctx, *args, **kwargs)
        if isinstance(narrow, torch.Tensor):
            return ctx.cast(results, narrow.dtype)
        return tuple(
            result if result is None else ctx.cast(result, fake.dtype)
            for fake, result in zip(narrow, results, strict=True)
        )

    return widened


def _tensors(fakes: Any) -> list[torch.Tensor]:
    return [fake for fake in pytree.tree_leaves(fakes) if isinstance(fake, torch.Tensor)]


def _widened_fake(fake: torch.Tensor) -> torch.Tensor:
    return fake.to(wide(fake.dtype))


def _widened(ctx: Context, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to(wide(value.dtype))
    if isinstance(value, ctx.trt.ITensor):
        return ctx.cast(value, wide(ctx.dtype(value)))
    return value
