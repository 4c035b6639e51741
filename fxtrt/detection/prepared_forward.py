"""Give a detector a `forward` that Dynamo takes as one graph: its core between two host steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .host_steps import HostSteps, TooManyCandidates, for_inference

__all__ = ["is_prepared", "undo_of", "with_core"]

_REASON = "fxtrt.detection.prepare keeps the steps around a detector's core out of any graph"
_MOST_IMAGES = 8
"""The upper bound of images that TensorRT gets, unless a call has more."""
_MOST_SHAPES = 4096
"""The most shapes of batches whose ranges are kept."""
_Ranges = tuple[tuple[int, int, int], ...]
"""The input, the dimension and the most of each size that varies."""


def with_core(model: torch.nn.Module, steps: HostSteps) -> Callable[[], None]:
    """Replace `model.forward` by its core between the host steps; return what undoes that.

    The sizes of the batch are marked as dynamic, so that one graph serves all of them. A batch of
    one image has a graph of its own, because Dynamo specializes on a size of 1. A call that the
    steps refuse, or whose bound on candidates may have changed the result, runs the original.
    """
    original, core = model.forward, for_inference(steps.core, model)
    before, after = _host_steps(steps)
    modules = tuple(vars(module) for module in model.modules())

    def bounded_core(inputs: tuple[Tensor, ...], ranges: _Ranges) -> Any:
        for tensor, dim, high in ranges:
            torch._check(inputs[tensor].shape[dim] <= high)  # TensorRT needs an upper bound.
        return core(*inputs)

    # Dynamo passes over this frame, which has guards on the size of each image, and compiles
    # those that it calls.
    @partial(torch.compiler.disable, recursive=False, reason=_REASON)
    def prepared(*args: Any, **kwargs: Any) -> Any:
        call = before(args, kwargs) if fits() else None
        if call is None:
            return original(*args, **kwargs)
        inputs, ranges, context = call
        result = after(bounded_core(inputs, ranges), context)
        return original(*args, **kwargs) if result is None else result

    @_out_of_dynamo
    def fits() -> bool:
        if any(module["training"] for module in modules):
            return False
        # The core has the children of the time when it was made.
        return all(core._modules.get(name) is child for name, child in model._modules.items())

    prepared.core = core
    model.forward = prepared

    def undo() -> None:
        if vars(model).get("forward") is prepared:
            del model.forward

    prepared.undo = undo
    return undo


def _host_steps(steps: HostSteps) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the steps before and after the core, out of any graph; both may return None."""
    ranges_of: dict[tuple[torch.Size, ...], _Ranges] = {}

    @_out_of_dynamo
    def before(args: Any, kwargs: Any) -> tuple[tuple[Tensor, ...], _Ranges, Any] | None:
        try:
            with torch.no_grad():
                call = steps.before(*args, **kwargs)
                # To make sizes anew at each call would take a millisecond.
                shapes = tuple(tensor.shape for tensor in call.inputs)
                ranges = ranges_of.get(shapes)
                if ranges is None:
                    if len(ranges_of) >= _MOST_SHAPES:
                        ranges_of.clear()
                    dynamic = steps.dynamic_shapes(call.inputs, _MOST_IMAGES)
                    ranges = ranges_of[shapes] = _ranges(call.inputs, dynamic)
        except Exception:  # The caller may have passed anything; `original` says what is wrong.
            return None
        for number, dim, _ in ranges:
            torch._dynamo.maybe_mark_dynamic(call.inputs[number], dim)
        return call.inputs, ranges, call.context

    @_out_of_dynamo
    def after(outputs: Any, context: Any) -> Any:
        try:
            return steps.after(outputs, context)
        except TooManyCandidates:
            return None

    return before, after


def is_prepared(model: torch.nn.Module) -> bool:
    """Return whether `model` has a `forward` that `with_core` gave it."""
    return isinstance(getattr(vars(model).get("forward"), "core", None), torch.nn.Module)


def undo_of(model: torch.nn.Module) -> Callable[[], None]:
    """Return what `with_core` returned for `model`, which `is_prepared`."""
    undo: Callable[[], None] = vars(model)["forward"].undo
    return undo


def _out_of_dynamo(function: Callable[..., Any]) -> Any:
    return torch.compiler.disable(function, reason=_REASON)  # type: ignore[no-untyped-call]  # torch's


def _ranges(inputs: tuple[Tensor, ...], shapes: Any) -> _Ranges:
    """Return the ranges of a call's inputs, from what `HostSteps.dynamic_shapes` returned."""
    return tuple(
        (number, dim, _most(size))
        for number, (tensor, sizes) in enumerate(zip(inputs, shapes, strict=True))
        for dim, size in (sizes or {}).items()
        if tensor.shape[dim] > 1
    )


def _most(size: Any) -> int:
    """Return the upper bound of a `Dim`, or of a multiple of one."""
    root = getattr(size, "root", None)
    return int(size.max if root is None else size.fn(root.max))
