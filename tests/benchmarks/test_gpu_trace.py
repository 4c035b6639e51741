"""A profiler's trace becomes GPU time, kernels and waits, by calls and by named ranges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_trace import CALL, activity, by_range, trace_of


def event(cat: str, name: str, ts: float, dur: float, correlation: int = 0) -> dict[str, Any]:
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": {"correlation": correlation}}


TRACE = [
    event("user_annotation", CALL, 0.0, 100.0),
    event("user_annotation", "backbone", 5.0, 20.0),
    event("user_annotation", "head", 30.0, 40.0),
    event("cuda_runtime", "cudaLaunchKernel", 10.0, 1.0, 1),
    event("cuda_runtime", "cudaGraphLaunch", 40.0, 1.0, 2),
    event("cuda_runtime", "cudaStreamSynchronize", 80.0, 15.0, 3),
    event("cpu_op", "aten::_local_scalar_dense", 79.0, 17.0),
    event("kernel", "a", 20.0, 30.0, 1),
    # Two kernels of the graph overlap by 10 microseconds.
    event("kernel", "b", 50.0, 20.0, 2),
    event("gpu_memcpy", "c", 60.0, 60.0, 2),
    # Neither belongs to a call: the wait of the profiler, and work from before it.
    event("cuda_runtime", "cudaDeviceSynchronize", 130.0, 5.0, 4),
    event("kernel", "d", -50.0, 10.0, 5),
]


def test_only_what_a_call_launches_counts() -> None:
    found = activity(TRACE)
    assert found.gpu_busy_ms == pytest.approx(0.1)  # 20 to 120 without a gap
    assert (found.kernels, found.launches) == (3, 2)
    assert (found.host_waits, found.reads) == (1, 1)
    assert found.wall_ms == pytest.approx(0.12)


def test_several_calls_are_averaged() -> None:
    later = [{**e, "ts": e["ts"] + 1000.0, "args": {"correlation": 9}} for e in TRACE[:1]]
    assert activity([*TRACE, *later]).kernels == 1.5


def test_work_belongs_to_the_range_that_launched_it() -> None:
    found = by_range(TRACE, ("backbone", "head"))
    assert found["backbone"] == pytest.approx((0.03, 1))
    assert found["head"] == pytest.approx((0.07, 2))


def test_a_nested_range_takes_the_work_of_the_outer_one() -> None:
    outer = event("user_annotation", "outer", 1.0, 90.0)
    found = by_range([outer, *TRACE], ("outer", "head"))
    assert found["outer"] == pytest.approx((0.03, 1))
    assert found["head"] == pytest.approx((0.07, 2))


def test_a_trace_without_calls_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no range named 'bench\.call'"):
        activity(TRACE[1:])


def test_a_real_trace_has_its_calls() -> None:
    x = torch.ones(2)
    events = trace_of(lambda: float((x + 1).sum()), 3)
    found = activity(events)
    assert found.reads == 1
    assert (found.kernels, found.host_waits) == (0, 0)  # of a GPU
