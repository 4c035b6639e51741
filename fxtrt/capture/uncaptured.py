"""Watches a run of a model, and gives the calls that ran outside of any graph of fxtrt's."""

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
"""Folders whose frames are not the user's."""


@dataclass(frozen=True, slots=True)
class OutsideCall:
    """The calls of one operator by one line of one module.

    module:   its path in the model, "" for the model itself.
    source:   the user's line, as "model.py:12 in forward".
    calls:    how many.
    flops:    of all of them, as torch counts them.
    ms:       of all of them.
    computes: as `fxtrt.graph.nodes.computes` says.
    """

    target: str
    module: str
    source: str
    computes: bool
    calls: int = 0
    flops: int = 0
    ms: float = 0.0


class OutsideCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Notes, while it is entered, each operator that runs outside of what `as_graph` made."""

    only_watches = True
    """A compiled model runs as compiled under this mode, which changes nothing."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._paths = {
            id(module): path.removeprefix("_orig_mod").removeprefix(".")
            for path, module in model.named_modules()
        }
        self._found: dict[tuple[str, str, str], OutsideCall] = {}

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Under another mode, Dynamo would run the model as if it were not compiled."""
        return True

    def below(self, parts: Sequence[str]) -> list[OutsideCall]:
        """What was found, without the calls of the modules at or under these paths."""
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
            # Under inference_mode composites come whole; torch's counter takes them apart too.
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
        """The module's path and the user's line that are running; None inside a graph."""
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
    """Seconds, when all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
