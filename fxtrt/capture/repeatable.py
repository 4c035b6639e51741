"""Refuses to capture a model that counts its calls, or the like, in Python attributes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..errors import CaptureError
from ..graph.specs import Call
from .attributes import Attributes
from .copies import copied
from .reachable import reachable
from .untouched import untouched, untouched_modes

__all__ = ["repeatable"]


@contextmanager
def repeatable(model: torch.nn.Module, call: Call) -> Iterator[None]:
    """Refuse, at the end, a model that assigned in the block what its next call would read.

    A graph has the attributes of the call that it was captured in, and assigns none. Buffers are
    not meant: a graph writes them. An assignment alone is no harm, as of a value that is kept for
    reading: the model is then called twice, as it is, and must answer the same.

    Args:
        model: called in the block by `torch.export`, which takes assignments back by itself.

    Raises:
        CaptureError: with the way out.
    """
    assigns = False
    noted: list[Attributes] = []

    def note(module: torch.nn.Module, _: Any) -> None:
        tables = {id(t) for m in module.modules() for t in (m._parameters, m._buffers)}
        noted.append(Attributes([one for one in reachable(module) if id(one) not in tables]))

    def compare(_: torch.nn.Module, __: Any, ___: Any) -> None:
        nonlocal assigns
        assigns |= noted.pop().are_changed

    hooks = model.register_forward_pre_hook(note), model.register_forward_hook(compare)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if assigns:
        _require_same_answer_twice(model, call)


def _require_same_answer_twice(model: torch.nn.Module, call: Call) -> None:
    first, second = _answers(model, call)
    try:
        torch.testing.assert_close(second, first, equal_nan=True)
    except AssertionError as error:
        raise CaptureError(
            f"{type(model).__name__}.forward assigns Python attributes that its next call reads, "
            f"which no graph does: the same inputs gave another answer the second time. Keep the "
            f"value in a buffer, or outside of forward"
        ) from error


def _answers(model: torch.nn.Module, call: Call) -> list[list[Any]]:
    """Of two calls in a row, with the same buffers and random numbers."""
    tables = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    buffers = list(model.buffers())
    answers: list[list[Any]] = []
    with torch.no_grad(), untouched(model):
        for _ in range(2):
            args, kwargs = copied((call.args, call.kwargs))
            with untouched(buffers), untouched_modes():
                answers.append(pytree.tree_leaves(copied(model(*args, **kwargs))))
            for table, before in tables:
                table.update(before)
    return answers
