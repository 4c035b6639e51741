"""Refuses to capture a model whose calls change Python attributes that later calls read."""

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
    """Refuse, at the end of the block, a model whose call depends on assignments of earlier ones.

    A graph keeps the attributes of the call that it was captured in, and assigns none. An
    assignment alone is harmless, such as one of a value that is kept for reading. So if the block
    assigned any, the model is called twice, and must answer the same. Buffers do not matter here:
    a graph writes to them.

    Args:
        model: `torch.export` calls it in the block, and undoes its assignments.

    Raises:
        CaptureError: the second answer differs; the message says what to do.
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
    """Return the outputs of two successive calls with the same buffers and random numbers."""
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
