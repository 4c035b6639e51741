"""Turns the examples of a calibration into the inputs of the graphs of a captured model."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..capture.arguments import CallForm, call_of, positional
from ..capture.example_run import record_calls
from ..capture.model_part import ModelPart
from ..capture.model_parts import Captured
from ..errors import CaptureError, SettingsError
from ..graph.specs import Call

__all__ = ["Examples", "Fed"]


@dataclass(frozen=True, slots=True)
class Fed:
    """The inputs that one graph is run with.

    graph:  its number among the parts and the others of the model.
    values: one for each placeholder.
    """

    graph: int
    values: Sequence[Any]


class Examples:
    """Reads examples as calls of the model, and calls as inputs of its graphs."""

    def __init__(self, captured: Captured) -> None:
        self._captured = captured
        self._graphs = [*captured.parts, *captured.others]
        self._forms = [CallForm(part.module.forward, part.call) for part in self._graphs]

    def feed(self, number: int, item: Any) -> list[Fed]:
        """Return what example `number`, counted from 0, gives to the graphs.

        Raises:
            SettingsError: the example is no call of the model, or no graph takes it, or it has a
                NaN in it.
        """
        what = f"example {number} of calibration"
        try:
            call = call_of(self._captured.model, item)
        except CaptureError as error:
            raise SettingsError(f"{what} is not written like inputs: {error}") from error
        for value in pytree.tree_leaves((call.args, call.kwargs)):
            if isinstance(value, torch.Tensor) and bool(value.isnan().any()):
                raise SettingsError(f"{what} has a NaN in it")
        return list(self._fed(call, what))

    def _fed(self, call: Call, what: str) -> Iterator[Fed]:
        first = self._graphs[0]
        if first.steps is not None:
            yield from self._of_core(first, call, what)
        elif self._captured.parts[0].path == "":
            whole = [i for i, part in enumerate(self._graphs) if part.path == ""]
            yield self._of_one(whole, self._read(first, call, what), what)
        else:
            calls, _ = record_calls(self._captured.model, call)
            for i, part in enumerate(self._graphs):
                if part.path in calls:
                    yield self._of_one([i], calls[part.path], what)

    def _of_core(self, part: ModelPart, call: Call, what: str) -> Iterator[Fed]:
        """Run the host step before the core; more images than it takes make several inputs."""
        assert part.steps is not None
        if call.kwargs:
            call = positional(inspect.signature(part.module.forward), call)
        try:
            with torch.no_grad():
                inputs = part.steps.before(*call.args, **call.kwargs).inputs
        except Exception as error:  # The caller may have passed anything.
            raise SettingsError(f"{what} is not what the detector takes: {error!r}") from error
        most = part.specs[0].high[0] or sys.maxsize
        for start in range(0, len(inputs[0]), most):
            chunk = [tensor[start : start + most] for tensor in inputs]
            yield self._of_one([0], Call(tuple(chunk), {}), what, arrange=False)

    def _read(self, part: ModelPart, call: Call, what: str) -> Call:
        """Return the call as the recipe's graph takes it."""
        if part.recipe is None or part.recipe.arguments is None:
            return call
        try:
            return Call(part.recipe.arguments(*call.args), call.kwargs)
        except Exception as error:  # A recipe's function meets whatever the caller passed.
            raise SettingsError(f"{what} is not what the model takes: {error!r}") from error

    def _of_one(self, graphs: Sequence[int], call: Call, what: str, *, arrange: bool = True) -> Fed:
        """Return the inputs of the first of `graphs` that takes the call."""
        reasons: list[str] = []
        for i in graphs:
            arranged: Call | str = call
            if arrange and not self._forms[i].has(tuple(call.args), call.kwargs):
                arranged = self._forms[i].arrange(tuple(call.args), call.kwargs)
            values = _leaves(self._graphs[i], arranged)
            if not isinstance(values, str):
                return Fed(i, values)
            reasons.append(values)
        raise SettingsError(f"{what} does not fit what was captured: {'; '.join(reasons)}")


def _leaves(part: ModelPart, call: Call | str) -> list[Any] | str:
    """Return the inputs of a graph for a call, or why it does not take them."""
    if isinstance(call, str):
        return call
    leaves, tree = pytree.tree_flatten((tuple(call.args), dict(call.kwargs)))
    expected, example = pytree.tree_flatten((tuple(part.call.args), dict(part.call.kwargs)))
    if tree != example:
        return "the arguments have another structure than the example's"
    specs = iter(part.specs)
    for leaf, value in zip(leaves, expected, strict=True):
        if not isinstance(value, torch.Tensor):
            continue
        spec = next(specs)
        if not isinstance(leaf, torch.Tensor):
            return f"{spec.name} is a {type(leaf).__name__}, in the example it was a tensor"
        if reason := spec.mismatch(leaf):
            return reason
    return leaves
