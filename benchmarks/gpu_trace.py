"""Turns a profiler's trace of a few calls into GPU time, kernels and waits, by named ranges."""

from __future__ import annotations

import bisect
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

__all__ = ["CALL", "Activity", "Span", "activity", "by_range", "trace_of"]

CALL = "bench.call"
"""The name of the range around each call."""
_GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
_READS = ("aten::_local_scalar_dense", "aten::nonzero")
"""Operators that return a number or a size which the host must wait for."""

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time on the host, in microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Activity:
    """The work of one call, as the mean of several.

    gpu_busy_ms: the time in which the GPU does anything.
    kernels:     kernels, copies and fills, those of CUDA graphs too.
    launches:    kernels and CUDA graphs that the host launches.
    host_waits:  how often the host waits for the GPU.
    reads:       numbers and data-dependent sizes that PyTorch reads from the GPU.
    wall_ms:     the time between the first launch and the end of the GPU's work, while profiled.
    """

    gpu_busy_ms: float
    kernels: float
    launches: float
    host_waits: float
    reads: float
    wall_ms: float


def trace_of(call: Callable[[], Any], calls: int) -> list[Event]:
    """Return the events of the profiler for `calls` calls, each within a range named `CALL`."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(calls):
            with record_function(CALL):
                call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return [event for event in events if event.get("ph") == "X"]


def activity(events: Iterable[Event]) -> Activity:
    """Return what a call does, from the events of several calls in ranges named `CALL`.

    Raises:
        ValueError: no event is a range of that name.
    """
    events = list(events)
    inside = _Ranges(spans(events, (CALL,)))
    if not inside.spans:
        raise ValueError(f"the trace has no range named {CALL!r}")
    calls = len(inside.spans)
    host = [event for event in events if inside.at(event["ts"]) is not None]
    launched = {_correlation(e): e for e in host if e.get("cat") in _LAUNCHES and _correlation(e)}
    work = [e for e in events if e.get("cat") in _GPU_WORK and _correlation(e) in launched]
    waits = sum(e.get("cat") in _LAUNCHES and e["name"] in _WAITS for e in host)
    reads = sum(e.get("cat") == "cpu_op" and e["name"] in _READS for e in host)
    return Activity(
        gpu_busy_ms=_covered(work) / 1e3 / calls,
        kernels=len(work) / calls,
        launches=len({_correlation(event) for event in work}) / calls,
        host_waits=waits / calls,
        reads=reads / calls,
        wall_ms=_wall(inside, launched, work) / 1e3 / calls,
    )


def by_range(events: Iterable[Event], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return milliseconds of GPU work and the number of kernels per call, for each named range.

    Work belongs to the innermost named range in which the host launched it.
    """
    events = list(events)
    calls = max(1, len(spans(events, (CALL,))))
    ranges = _Ranges(spans(events, names))
    owner: dict[int, str] = {}
    for event in events:
        if event.get("cat") in _LAUNCHES and (found := ranges.at(event["ts"])) is not None:
            owner[_correlation(event)] = found.name
    groups: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.get("cat") in _GPU_WORK and (name := owner.get(_correlation(event))):
            groups[name].append(event)
    return {
        name: (_covered(work) / 1e3 / calls, len(work) / calls) for name, work in groups.items()
    }


def spans(events: Iterable[Event], names: Sequence[str]) -> list[Span]:
    """Return the ranges on the host that have one of these names, by their start."""
    wanted = set(names)
    found = [
        Span(event["name"], event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "user_annotation" and event["name"] in wanted
    ]
    return sorted(found, key=lambda span: (span.start, -span.end))


class _Ranges:
    """Finds the innermost of several ranges at a time."""

    def __init__(self, sorted_spans: Sequence[Span]) -> None:
        self.spans = sorted_spans
        self._starts = [span.start for span in sorted_spans]

    def at(self, time: float) -> Span | None:
        for i in range(bisect.bisect_right(self._starts, time) - 1, -1, -1):
            if time <= self.spans[i].end:
                return self.spans[i]
        return None


def _correlation(event: Event) -> int:
    return int(event.get("args", {}).get("correlation", 0))


def _covered(events: Iterable[Event]) -> float:
    """Return the length of the union of the events' times."""
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: float(e["ts"])):
        start, stop = event["ts"], event["ts"] + event["dur"]
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _wall(ranges: _Ranges, launched: Mapping[int, Event], work: Iterable[Event]) -> float:
    """Return the sum over all calls of the time from a call's beginning to its end on the GPU."""
    ends = {id(span): span.end for span in ranges.spans}
    for event in work:
        span = ranges.at(launched[_correlation(event)]["ts"])
        assert span is not None
        ends[id(span)] = max(ends[id(span)], event["ts"] + event["dur"])
    return sum(ends[id(span)] - span.start for span in ranges.spans)
