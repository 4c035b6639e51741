"""Turns a way to run a detector into its times, its load on the GPU and its use of memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from gpu_trace import activity, trace_of
from stream_load import Load, Row, synchronize
from torch import Tensor, nn

import fxtrt

__all__ = ["Memory", "Plan", "coverage_of", "latencies", "measure", "threads"]

_ON_GPU = torch.cuda.is_available()
_TRACED = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of measuring.

    seconds: of calls that are timed, and of calls from several threads.
    threads: the numbers of threads; empty leaves this measurement out.
    warm_up: calls that nothing counts.
    least:   the fewest calls that are timed, however long they take.
    """

    seconds: float = 3.0
    threads: tuple[int, ...] = (1, 4)
    warm_up: int = 10 if _ON_GPU else 1
    least: int = 10 if _ON_GPU else 2


def measure(call: Callable[[Any], Any], batch: Any, plan: Plan) -> dict[str, Any]:
    """Return the times of one batch at a time, per image, and what the GPU does meanwhile."""
    count = len(batch)
    times = latencies(lambda: call(batch), plan)
    ordered = sorted(times)
    median = statistics.median(ordered)
    row = {
        "ms_per_image": median * 1e3 / count,
        "p95_ms_per_image": ordered[math.ceil(0.95 * len(ordered)) - 1] * 1e3 / count,
        "images_per_second": count / median,
        "calls": len(ordered),
    }
    if torch.cuda.is_available():
        done = activity(trace_of(lambda: call(batch), _TRACED))
        row |= {
            "gpu_busy_ms_per_image": done.gpu_busy_ms / count,
            # The profiler slows the host down, so its own clock would make the share too small.
            "gpu_busy_share": min(1.0, done.gpu_busy_ms / (median * 1e3)),
            "kernels": done.kernels,
            "launches": done.launches,
            "host_waits": done.host_waits,
            "reads": done.reads,
        }
    return row


def latencies(call: Callable[[], Any], plan: Plan) -> list[float]:
    """Return the seconds of single calls, each with a wait for the GPU at its end."""
    for _ in range(plan.warm_up):
        call()
    synchronize()
    found: list[float] = []
    end = time.perf_counter() + plan.seconds
    while len(found) < plan.least or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        found.append(time.perf_counter() - start)
    return found


def threads(call: Callable[[Any], Any], batch: Any, plan: Plan) -> dict[str, float]:
    """Return the images per second by the number of threads, each with a stream of its own."""
    load = Load(plan.seconds, plan.threads)
    rows = load.rows(Row("", "", 0, 0.0), lambda: _tensors(call(batch)), streams=True)
    return {str(row.threads): row.images_per_second * len(batch) for row in rows}


def _tensors(answers: Any) -> list[Tensor]:
    """Return the tensors of an answer; Detectron2's `Instances` are no pytree."""
    found: list[Tensor] = []
    for one in answers:
        for value in one.values():
            fields = value.get_fields().values() if hasattr(value, "get_fields") else [value]
            tensors = (getattr(field, "tensor", field) for field in fields)
            found += [tensor for tensor in tensors if isinstance(tensor, Tensor)]
    return found


class Memory:
    """Measures how much more of the GPU's memory is in use than when this was made."""

    def __init__(self) -> None:
        self._tensors = self._others = 0
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._tensors, self._others = torch.cuda.memory_allocated(), _outside()

    def used(self) -> dict[str, float]:
        """Return MB: the peak of PyTorch's tensors, and what grew outside of its allocator.

        The latter are engines, their scratch memory, and libraries.
        """
        if not torch.cuda.is_available():
            return {}
        peak = torch.cuda.max_memory_allocated() - self._tensors
        torch.cuda.reset_peak_memory_stats()
        return {"torch_peak_mb": peak / 1e6, "other_mb": (_outside() - self._others) / 1e6}


def _outside() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def coverage_of(compiled: nn.Module) -> Mapping[str, Any]:
    """Return what a compiled detector's report says of its engines and of calls that fell back."""
    report = fxtrt.report(compiled)
    calls = [reason for row in report.guards for reason in row.reasons]
    inside = [
        (f"{one.cluster}: {one.reason}", one.calls)
        for row in report.runtime
        for one in row.fallbacks
    ]
    return {
        "flops_share": report.flops_share,
        "gflops": report.flops / 1e9,
        "engines": len(report.clusters),
        "graphs": len(report.pictures),
        "nodes": report.nodes,
        "converted": report.converted,
        "build_seconds": sum(row.build.seconds for row in report.clusters if row.build),
        "fallbacks": [list(one) for one in [*calls, *inside]],
        "failed": [r.detail for r in report.rejections if r.code == "build_failed"],
        "capture": list(report.capture),
        "runtime": [asdict(row) for row in report.runtime],
    }
