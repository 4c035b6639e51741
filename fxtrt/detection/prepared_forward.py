"""Give a detector a `forward` that Dynamo takes as one graph: its core between two host steps."""

from __future__ import annotations

import copy
import weakref
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
_StepsOf = Callable[[torch.nn.Module], HostSteps | str]
"""A function that returns the host steps of a model, or why it has none."""


def with_core(model: torch.nn.Module, steps: HostSteps, steps_of: _StepsOf) -> Callable[[], None]:
    """Replace `model.forward` by its core between the host steps; return what undoes that.

    The sizes of the batch are marked as dynamic, so that one graph serves all of them. A batch of
    one image has a graph of its own, because Dynamo specializes on a size of 1. A call that the
    steps refuse, or whose bound on candidates may have changed the result, runs the original.

    Args:
        steps_of: made `steps`, and makes those of a copy of `model`.
    """
    prepared = _PreparedForward(model, model.forward, steps_of, _Core(model, steps))
    model.forward = prepared
    return prepared.undo


def is_prepared(model: torch.nn.Module) -> bool:
    """Return whether `model` has a `forward` that `with_core` gave it, or a copy of it."""
    return isinstance(vars(model).get("forward"), _PreparedForward)


def undo_of(model: torch.nn.Module) -> Callable[[], None]:
    """Return what `with_core` returned for `model`, which `is_prepared`."""
    prepared = vars(model)["forward"]
    assert isinstance(prepared, _PreparedForward)
    return prepared.undo


def _out_of_dynamo(function: Callable[..., Any]) -> Any:
    return torch.compiler.disable(function, reason=_REASON)  # type: ignore[no-untyped-call]  # torch's


class _PreparedForward:
    """The `forward` of one model; a copy of the model gets a core of its own."""

    def __init__(
        self,
        model: torch.nn.Module,
        original: Callable[..., Any],
        steps_of: _StepsOf,
        core: _Core | None = None,
    ) -> None:
        self._model = weakref.ref(model)
        self._original = original
        self._steps_of = steps_of
        self._core = core

    # Dynamo passes over this frame, which has guards on the size of each image, and compiles
    # those that it calls.
    @partial(torch.compiler.disable, recursive=False, reason=_REASON)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        core = self._core or self._new_core()
        call = None if core is None else core.before(args, kwargs)
        if core is None or call is None:
            return self._original(*args, **kwargs)
        inputs, ranges, context = call
        result = core.after(_bounded(core.module, inputs, ranges), context)
        return self._original(*args, **kwargs) if result is None else result

    @_out_of_dynamo
    def _new_core(self) -> _Core | None:
        model = self._model()
        steps = "the model is gone" if model is None else self._steps_of(model)
        if model is not None and not isinstance(steps, str):
            self._core = _Core(model, steps)
        return self._core

    def __deepcopy__(self, memo: dict[int, Any]) -> _PreparedForward:
        # The model's copy is not complete yet, so its core is made at its first call.
        model = copy.deepcopy(self._model(), memo)
        assert model is not None
        return _PreparedForward(model, copy.deepcopy(self._original, memo), self._steps_of)

    def undo(self) -> None:
        model = self._model()
        if model is not None and vars(model).get("forward") is self:
            del model.forward


class _Core:
    """A core with the steps around it, which are out of any graph and may return None."""

    def __init__(self, model: torch.nn.Module, steps: HostSteps) -> None:
        self.module = for_inference(steps.core, model)
        self._steps = steps
        self._attributes = tuple(vars(module) for module in model.modules())
        self._children = model._modules
        self._ranges_of: dict[tuple[torch.Size, ...], _Ranges] = {}

    @_out_of_dynamo
    def before(self, args: Any, kwargs: Any) -> tuple[tuple[Tensor, ...], _Ranges, Any] | None:
        if not self._fits():
            return None
        try:
            with torch.no_grad():
                call = self._steps.before(*args, **kwargs)
                ranges = self._ranges(call.inputs)
        except Exception:  # The caller may have passed anything; the original says what is wrong.
            return None
        for number, dim, _ in ranges:
            torch._dynamo.maybe_mark_dynamic(call.inputs[number], dim)
        return call.inputs, ranges, call.context

    @_out_of_dynamo
    def after(self, outputs: Any, context: Any) -> Any:
        try:
            return self._steps.after(outputs, context)
        except TooManyCandidates:
            return None

    def _fits(self) -> bool:
        if any(module["training"] for module in self._attributes):
            return False
        # The core has the children of the time when it was made.
        own = self.module._modules
        return all(own.get(name) is child for name, child in self._children.items())

    def _ranges(self, inputs: tuple[Tensor, ...]) -> _Ranges:
        """Return the ranges of the sizes, which would take a millisecond to make at each call."""
        shapes = tuple(tensor.shape for tensor in inputs)
        ranges = self._ranges_of.get(shapes)
        if ranges is None:
            if len(self._ranges_of) >= _MOST_SHAPES:
                self._ranges_of.clear()
            dynamic = self._steps.dynamic_shapes(inputs, _MOST_IMAGES)
            ranges = self._ranges_of[shapes] = _ranges(inputs, dynamic)
        return ranges


def _bounded(core: torch.nn.Module, inputs: tuple[Tensor, ...], ranges: _Ranges) -> Any:
    """Call the core with sizes that have an upper bound, which TensorRT needs."""
    for tensor, dim, high in ranges:
        torch._check(inputs[tensor].shape[dim] <= high)
    return core(*inputs)


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
