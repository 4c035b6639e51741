"""Runs a model once on its example inputs, and records which calls it makes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from ..announce import announced
from ..graph.specs import Call
from .copies import copied
from .uncaptured import OutsideCalls
from .untouched import untouched

__all__ = ["record_calls", "watched_run"]


def record_calls(model: torch.nn.Module, call: Call) -> tuple[dict[str, Call], OutsideCalls]:
    """Return the first call of each submodule by its path, and the operators that ran.

    The run leaves the model and the inputs unchanged.
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
    """Run the model once without lasting effects, and return the operators outside of graphs."""
    watch = OutsideCalls(model)
    # The recorded calls keep the inputs, so the model gets copies, which it may write to.
    args, kwargs = copied((call.args, call.kwargs))
    doing = f"running {type(model).__name__} once, to see what it calls"
    with untouched(model, args, kwargs), announced(doing), watch:
        model(*args, **kwargs)
    return watch
