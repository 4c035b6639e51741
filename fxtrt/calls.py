"""Runs a model once on its example inputs, and notes what was called in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .outside import OutsideCalls

__all__ = ["Call", "record_calls", "watched_run"]


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a call."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def record_calls(model: torch.nn.Module, call: Call) -> tuple[dict[str, Call], OutsideCalls]:
    """The first call of each submodule, by its path, and every operator that ran.

    The run leaves nothing behind: it gets copies of the inputs, and buffers that the model updates
    are as they were.
    """
    calls: dict[str, Call] = {}

    def note(path: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            calls.setdefault(path, Call(args, kwargs))

        return hook

    with ExitStack() as stack:
        for path, module in model.named_modules():
            handle = module.register_forward_pre_hook(note(path), with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        return calls, watched_run(model, call)


def watched_run(model: torch.nn.Module, call: Call) -> OutsideCalls:
    """The operators that run outside of any graph in one run, which leaves nothing behind."""
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (call.args, call.kwargs))
    watch = OutsideCalls(model)
    with _unchanged_buffers(model), watch:
        model(*args, **kwargs)
    return watch


@contextmanager
def _unchanged_buffers(model: torch.nn.Module) -> Iterator[None]:
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in _watchable(model)]
    try:
        yield
    finally:
        _restore(buffers)


def _watchable(model: torch.nn.Module) -> list[torch.Tensor]:
    return [buffer for buffer in model.buffers() if not buffer.is_inference()]


def _restore(buffers: Sequence[tuple[torch.Tensor, int, torch.Tensor]]) -> None:
    for buffer, version, before in buffers:
        if buffer._version != version:
            buffer.copy_(before)
