"""Records a function as CUDA graphs, one for each slot and shape, and replays them."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from ..detection.small_tables import is_kept
from ..engines.base import Engine
from ..forks import ForkLock
from .fallbacks import Fallbacks
from .slot import (
    Slot,
    keep_for,
    one_at_a_time,
)

__all__ = ["CALLS_TO_RECORD", "GraphRunner", "NotRecorded", "Replay"]

CALLS_TO_RECORD = 2
"""The number of the call at which a shape is recorded: the first call may stay the only one."""
_MOST = 8
"""The most graphs of one function in one slot; the least recently used are dropped."""
_PATIENCE = 32
"""How many calls of a shape pass after its graph was dropped before it is recorded again."""
_MOST_COUNTED = 4096
_WARM_UP = 2


class NotRecorded(Exception):
    """The function is not recorded for these shapes, but may be for others."""


class GraphRunner:
    """Runs a function of tensors through CUDA graphs if it can.

    failed: the reasons why shapes were not recorded, by shape; they are not tried again.
    broken: the reason why no shape can be recorded, or None.
    """

    def __init__(self, function: Callable[..., Sequence[Any]], engines: Sequence[Engine]) -> None:
        """Record nothing yet.

        Args:
            engines: the engines that the function runs.
            function: takes tensors on the GPU and constants, and returns a flat sequence. It runs
                inside a slot, and uses the contexts that the slot has at that time.
        """
        self._function, self._engines = function, tuple(engines)
        self._lock = ForkLock()
        self._calls: dict[Hashable, int] = {}
        self._of_slot: dict[Slot, OrderedDict[Hashable, Replay]] = {}
        self.failed: dict[Hashable, str] = {}
        self._told = Fallbacks("no CUDA graph")
        self.broken: str | None = None

    @property
    def recorded(self) -> int:
        """Count the graphs in all slots."""
        return sum(map(len, list(self._of_slot.values())))

    @property
    def recorded_bytes(self) -> int:
        """Return the memory that the graphs of all slots took."""
        return sum(
            replay.bytes
            for of_slot in list(self._of_slot.values())
            for replay in list(of_slot.values())
        )

    def run(self, slot: Slot, values: Sequence[Any]) -> list[Any] | None:
        """Return what the function gives for `values`, in new memory, or None if there is no graph.

        The caller then runs the function itself. The second call of a shape records it.
        """
        if slot.reserved or self.broken is not None:
            return None
        key = _key(values)
        replays = self._of_slot.setdefault(slot, OrderedDict())
        replay = replays.get(key)
        if replay is None:
            replay = self._record(slot, key, values) if self._is_due(key) else None
            if replay is None:
                return None
            if len(replays) >= _MOST:
                self._drop_oldest(slot, replays)
            replays[key] = replay
        replays.move_to_end(key)
        return replay(values)

    def _drop_oldest(self, slot: Slot, replays: OrderedDict[Hashable, Replay]) -> None:
        with one_at_a_time():
            # A replay must end before its memory is freed.
            torch.cuda.current_stream(slot.device).synchronize()
            key, _ = replays.popitem(last=False)
        with self._lock():
            # Without this, more shapes than there may be graphs would be recorded at every call.
            self._calls[key] = -_PATIENCE

    def _is_due(self, key: Hashable) -> bool:
        with self._lock():
            if len(self._calls) >= _MOST_COUNTED:
                self._calls.clear()
            count = self._calls[key] = self._calls.get(key, 0) + 1
            return count >= CALLS_TO_RECORD and key not in self.failed

    def _record(self, slot: Slot, key: Hashable, values: Sequence[Any]) -> Replay | None:
        try:
            return Replay(slot, self._function, self._engines, values)
        except (NotRecorded, torch.cuda.OutOfMemoryError) as error:
            reason = _first_line(error)
        except Exception as error:  # The function runs as it is; the report has the reason.
            reason = self.broken = f"{type(error).__name__}: {_first_line(error)}"
        with self._lock():
            if len(self.failed) >= _MOST_COUNTED:
                self.failed.clear()
            self.failed[key] = reason
        self._told.record(reason)
        return None


class Replay:
    """One run of a function, recorded as a CUDA graph on a slot's stream.

    It has contexts of its own, because a graph depends on the state of the contexts in it.

    bytes: by how much torch's memory grew while it was recorded. Another thread may have added to
           this, and graphs of the same slot share memory.
    """

    def __init__(
        self,
        slot: Slot,
        function: Callable[..., Sequence[Any]],
        engines: Sequence[Engine],
        values: Sequence[Any],
    ) -> None:
        stream: Any = slot.stream
        caller = torch.cuda.current_stream(slot.device)
        stream.wait_stream(caller)
        self._last: Any = stream
        self._copied: list[Any] = [None] * len(values)
        try:
            with (
                one_at_a_time(),
                torch.inference_mode(False),
                torch.no_grad(),
                torch.cuda.stream(stream),
                slot.other_contexts(engines) as self._contexts,
            ):
                self._inputs = [_copy(v) if isinstance(v, torch.Tensor) else v for v in values]
                for _ in range(_WARM_UP):
                    function(*self._inputs)
                stream.synchronize()
                taken = torch.cuda.memory_reserved(slot.device)
                with _no_garbage_collection():
                    self._graph, self._outputs = _capture(function, self._inputs, slot.graph_pool())
                taken = torch.cuda.memory_reserved(slot.device) - taken
                self.bytes = max(0, taken) + _bytes(self._inputs)
        finally:
            caller.wait_stream(stream)

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """Replay on the current stream, and return copies of the results."""
        stream = torch.cuda.current_stream(self._last.device)
        if stream != self._last:
            keep_for(stream, self._inputs)
            self._last = stream
        for i, (mine, value) in enumerate(zip(self._inputs, values, strict=True)):
            if isinstance(mine, torch.Tensor) and value is not self._copied[i]:
                # An exception may come between the copy and the note of it.
                self._copied[i] = None
                mine.copy_(value)
                self._copied[i] = value if is_kept(value) else None
        self._graph.replay()
        copies: dict[int, torch.Tensor] = {}
        results: list[Any] = []
        for output in self._outputs:
            if isinstance(output, torch.Tensor):
                if id(output) not in copies:
                    copies[id(output)] = output.clone()
                output = copies[id(output)]
            results.append(output)
        return results


def _capture(
    function: Callable[..., Sequence[Any]], inputs: Sequence[Any], pool: Any
) -> tuple[torch.cuda.CUDAGraph, list[Any]]:
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate memory meanwhile, which "thread_local" allows.
    try:
        # An exception right after this line must end the recording, so it is in the block.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        outputs = list(function(*inputs))
        graph.capture_end()
    except BaseException:
        _abandon(graph, pool)
        raise
    return graph, outputs


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """End a recording that failed, at whatever step that was."""
    with suppress(RuntimeError):
        graph.capture_end()
    # If CUDA refuses to end it, torch's allocator still records, and would never again free memory
    # that another stream has used.
    with suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    # The generator still records too: it gives no numbers until a recording has ended well.
    with suppress(RuntimeError):
        well = torch.cuda.CUDAGraph()
        well.capture_begin(capture_error_mode="thread_local")
        torch.zeros(1, device="cuda")
        well.capture_end()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect no garbage: freeing an engine or a graph calls CUDA, which ends a recording."""
    enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()


def _bytes(values: Sequence[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_inference():
        # The copy must be a normal tensor, because it is written to outside of inference mode.
        return torch.empty_like(tensor, memory_format=torch.preserve_format).copy_(tensor)
    return tensor.detach().clone()


def _key(values: Sequence[Any]) -> Hashable:
    """Return a key of all that a graph depends on."""
    return (
        torch.is_autocast_enabled("cuda"),
        *(
            (value.shape, value.stride(), value.dtype, value.device)
            if isinstance(value, torch.Tensor)
            else (type(value), value)
            for value in values
        ),
    )
