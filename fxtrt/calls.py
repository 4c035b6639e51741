"""Runs a model once on its example inputs, and notes how each of its modules was called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Call", "record_calls"]


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a call."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def record_calls(model: torch.nn.Module, call: Call) -> tuple[dict[str, Call], int]:
    """The first call of each submodule, by its path, and the FLOPs of the whole run.

    The run leaves nothing behind: it gets copies of the inputs, and buffers that the model updates
    are as they were.
    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (call.args, call.kwargs))
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in _watchable(model)]
    calls: dict[str, Call] = {}

    def note(path: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            calls.setdefault(path, Call(args, kwargs))

        return hook

    counter = FlopCounterMode(display=False)
    with ExitStack() as stack:
        for path, module in model.named_modules():
            handle = module.register_forward_pre_hook(note(path), with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(counter)
        stack.callback(_restore, buffers)
        model(*args, **kwargs)
    return calls, int(counter.get_total_flops())


def _watchable(model: torch.nn.Module) -> list[torch.Tensor]:
    return [buffer for buffer in model.buffers() if not buffer.is_inference()]


def _restore(buffers: Sequence[tuple[torch.Tensor, int, torch.Tensor]]) -> None:
    for buffer, version, before in buffers:
        if buffer._version != version:
            buffer.copy_(before)
