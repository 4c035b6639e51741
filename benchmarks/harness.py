"""Times several calls in turns, measures the errors of their outputs, and saves the results."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

__all__ = ["Timing", "graphed", "machine", "relative_error", "save", "show", "time_calls", "timing"]

Outputs = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call on the GPU, and the relative error against the reference outputs."""

    name: str
    median_ms: float
    p95_ms: float
    relative_error: float
    note: str = ""


def relative_error(actual: Outputs, expected: Outputs) -> float:
    """Return the largest ||a - e|| / ||e|| over all outputs; nan if anything is not finite."""
    errors = []
    for a, e in zip(actual, expected, strict=True):
        difference = torch.linalg.vector_norm(a.double() - e.double())
        errors.append(float(difference / torch.linalg.vector_norm(e.double())))
    return max(errors) if all(error == error for error in errors) else float("nan")


def graphed(call: Callable[[], Any], stream: torch.cuda.Stream) -> Callable[[], Any]:
    """Capture `call` in a CUDA graph, and return a call that replays it and returns its outputs."""
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        outputs = call()

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay


def time_calls(
    calls: dict[str, Callable[[], Any]], warm_up: int = 20, rounds: int = 10, repeat: int = 20
) -> dict[str, list[float]]:
    """Return the milliseconds of single calls by name; in each round all candidates take turns."""
    for call in calls.values():
        for _ in range(warm_up):
            call()
    torch.cuda.synchronize()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            for _ in range(repeat):
                start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
                end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
                start.record()
                call()
                end.record()
                end.synchronize()
                times[name].append(start.elapsed_time(end))
    return times


def timing(name: str, times: Sequence[float], error: float, note: str = "") -> Timing:
    """Return the summary of one candidate."""
    ordered = sorted(times)
    return Timing(
        name, statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], error, note
    )


def machine() -> dict[str, str]:
    """Return a description of this machine for the results."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if torch.cuda.is_available():
        versions["gpu"] = torch.cuda.get_device_name()
        versions["cuda"] = str(torch.version.cuda)
        versions["driver"] = _driver()
    return versions


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def show(timings: Sequence[Timing]) -> str:
    """Return the results as a table."""
    rows = [
        [t.name, f"{t.median_ms:.3f}", f"{t.p95_ms:.3f}", f"{t.relative_error:.1e}", t.note]
        for t in timings
    ]
    headers = ["", "median ms", "p95 ms", "rel. error", ""]
    return tabulate(rows, headers=headers, disable_numparse=True)


def save(path: Path, timings: Sequence[Timing], context: dict[str, Any]) -> None:
    """Write the results to a JSON file, with the machine and `context`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), **context, "timings": [asdict(t) for t in timings]}
    path.write_text(json.dumps(record, indent=2) + "\n")
