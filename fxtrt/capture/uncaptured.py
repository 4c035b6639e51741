"""Turns a run of a model into the list of operators that ran outside of fxtrt's graphs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..graph.nodes import target_computes
from ..graph.provenance import IN_GRAPH, line_text

__all__ = ["OutsideCall", "OutsideCalls", "seconds_now"]

_LIBRARIES = tuple(
    f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1])
)
"""The folders of torch and fxtrt, whose stack frames are not the user's code."""


@dataclass(frozen=True, slots=True)
class OutsideCall:
    """All calls of one operator from one line of one module.

    module:   the path in the model, "" for the model itself.
    source:   the user's line, as "model.py:12 in forward".
    calls:    the number of calls.
    flops:    the FLOPs of all calls, as torch counts them.
    ms:       the milliseconds of all calls.
    computes: the answer of `fxtrt.graph.nodes.target_computes`.
    """

    target: str
    module: str
    source: str
    computes: bool
    calls: int = 0
    flops: int = 0
    ms: float = 0.0


class OutsideCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Records, while it is active, each operator outside of functions made by `as_graph`."""

    only_watches = True
    """Tells `Ambient` that this mode changes no results, so compiled models run as compiled."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._paths = {
            id(module): path.removeprefix("_orig_mod").removeprefix(".")
            for path, module in model.named_modules()
        }
        self._found: dict[tuple[str, str, str], OutsideCall] = {}

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Return True, since Dynamo runs nothing as compiled under other modes."""
        return True

    def below(self, parts: Sequence[str]) -> list[OutsideCall]:
        """Return the calls of modules that are not at or below these paths."""
        return [
            call
            for call in self._found.values()
            if not any(call.module == part or call.module.startswith(f"{part}.") for part in parts)
        ]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        place = self._place(sys._getframe(1))
        if place is None:
            return func(*args, **kwargs)
        if isinstance(func, OpOverload) and func not in flop_registry:
            # Under inference_mode composites arrive whole. They are decomposed for their FLOPs.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        start = seconds_now()
        result = func(*args, **kwargs)
        self._note(func, place, (seconds_now() - start) * 1e3, _flops(func, args, kwargs, result))
        return result

    def _note(self, func: Any, place: tuple[str, str], ms: float, flops: int) -> None:
        key = (str(func), *place)
        call = self._found.get(key) or OutsideCall(*key, computes=target_computes(func))
        self._found[key] = replace(
            call, calls=call.calls + 1, flops=call.flops + flops, ms=call.ms + ms
        )

    def _place(self, frame: FrameType | None) -> tuple[str, str] | None:
        """Return the running module's path and the user's line, or None inside a graph."""
        module, source = None, ""
        while frame is not None:
            code = frame.f_code
            if code is IN_GRAPH:
                return None
            if not source and not code.co_filename.startswith((*_LIBRARIES, "<")):
                source = line_text(code.co_filename, frame.f_lineno, code.co_name)
            if module is None and code.co_varnames[:1] == ("self",):
                module = self._paths.get(id(frame.f_locals.get("self")))
            frame = frame.f_back
        return module or "", source


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    count = flop_registry.get(getattr(func, "overloadpacket", None))
    return 0 if count is None else int(count(*args, **kwargs, out_val=result))


def seconds_now() -> float:
    """Wait for the GPU, and return the time in seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
