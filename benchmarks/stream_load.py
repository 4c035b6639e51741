"""Turns a call into its throughput and latency under the load of several threads."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch.utils import _pytree as pytree

__all__ = ["Load", "Row", "plot", "show", "synchronize"]

_WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Row:
    """The result of one candidate with one number of threads.

    slots:             the number of slots; 0 for eager.
    error:             the error of the outputs that the model's check returns.
    median_ms, p95_ms: the milliseconds from call to result, for one image.
    memory_gb:         all GPU memory in use; 0 without a GPU.
    """

    model: str
    name: str
    slots: int
    error: float
    threads: int = 0
    images_per_second: float = 0.0
    median_ms: float = 0.0
    p95_ms: float = 0.0
    calls: int = 0
    memory_gb: float = 0.0

    def record(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def case(self) -> tuple[str, str, int]:
        """Return what identifies the row: the model, the candidate and the number of threads."""
        return self.model, self.name, self.threads


@dataclass(frozen=True)
class Load:
    """The seconds of each measurement, and the numbers of threads."""

    seconds: float
    threads: Sequence[int]

    def rows(self, blank: Row, call: Callable[[], Any], streams: bool) -> Iterator[Row]:
        """Yield `blank` filled in for `call`, in threads with a stream each or with the default."""
        expected = pytree.tree_map(torch.clone, call())
        synchronize()
        for count in self.threads:
            latencies, wall = _under_load(call, count, streams, self.seconds, expected)
            ordered = sorted(latencies)
            free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
            yield replace(
                blank,
                threads=count,
                images_per_second=len(ordered) / wall,
                median_ms=1e3 * statistics.median(ordered),
                p95_ms=1e3 * ordered[math.ceil(0.95 * len(ordered)) - 1],
                calls=len(ordered),
                memory_gb=(total - free) / 1e9,
            )


def synchronize() -> None:
    """Wait for all work on the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _under_load(
    call: Callable[[], Any], count: int, streams: bool, seconds: float, expected: Any
) -> tuple[list[float], float]:
    """Return the latency of each call, and the seconds of the whole load."""
    workers = [_Worker(call, streams, expected) for _ in range(count)]
    ready, stop = threading.Barrier(count + 1), threading.Event()
    threads = [threading.Thread(target=w.work, args=(ready, stop)) for w in workers]
    for thread in threads:
        thread.start()
    try:
        ready.wait(60)
        start = time.perf_counter()
        time.sleep(seconds)
    except threading.BrokenBarrierError:
        start = time.perf_counter()
    stop.set()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    for failure in [worker.failure for worker in workers if worker.failure is not None]:
        # The other threads only waited for the one that failed.
        if not isinstance(failure, threading.BrokenBarrierError):
            raise RuntimeError(f"a thread failed: {failure}") from failure
    return [latency for worker in workers for latency in worker.latencies], wall


class _Worker:
    def __init__(self, call: Callable[[], Any], streams: bool, expected: Any) -> None:
        self._call, self._expected = call, expected
        on_stream = streams and torch.cuda.is_available()
        self._stream = torch.cuda.Stream() if on_stream else None  # type: ignore[no-untyped-call]  # torch's
        self.latencies: list[float] = []
        self.failure: Exception | None = None

    def work(self, ready: threading.Barrier, stop: threading.Event) -> None:
        try:
            entered = torch.cuda.stream(self._stream) if self._stream else nullcontext()
            with torch.no_grad(), entered:
                for _ in range(_WARM_UP_CALLS):
                    result = self._call()
                _require_same(result, self._expected)
                ready.wait(60)
                while not stop.is_set():
                    start = time.perf_counter()
                    self._call()
                    if torch.cuda.is_available():
                        torch.cuda.current_stream().synchronize()
                    self.latencies.append(time.perf_counter() - start)
        except Exception as failure:
            self.failure = failure
            ready.abort()


def _require_same(actual: Any, expected: Any) -> None:
    for a, e in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        if a.shape != e.shape:
            raise RuntimeError(f"{tuple(a.shape)} in a thread, {tuple(e.shape)} before")
        # Eager kernels that sum with atomics differ in the last bits.
        largest = float((a.double() - e.double()).abs().max()) if a.numel() else 0.0
        if largest > 1e-2 * max(1.0, float(e.double().abs().max()) if e.numel() else 0.0):
            raise RuntimeError(f"a thread's result differs by {largest:.1e} from that of one alone")


def show(rows: Sequence[Row]) -> str:
    """Return the results as a table."""
    table = [
        [
            row.model,
            row.name,
            row.threads,
            f"{row.images_per_second:.1f}",
            f"{row.median_ms:.2f}",
            f"{row.p95_ms:.2f}",
            f"{row.error:.1e}",
            f"{row.memory_gb:.1f}",
        ]
        for row in rows
    ]
    headers = ["", "", "threads", "images/s", "median ms", "p95 ms", "error", "GB"]
    return tabulate(table, headers=headers, disable_numparse=True)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot images per second against threads for each model, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    for model in dict.fromkeys(row.model for row in rows):
        figure, axes = pyplot.subplots(figsize=(9, 5))
        for name in dict.fromkeys(row.name for row in rows if row.model == model):
            line = [row for row in rows if (row.model, row.name) == (model, name)]
            style = "--" if name.startswith("eager") else "-"
            axes.plot(
                [row.threads for row in line],
                [row.images_per_second for row in line],
                style,
                marker="o",
                label=name,
            )
        axes.set(xlabel="threads", ylabel="images per second", title=model, ylim=(0, None))
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
        figure.savefig(f"{path}_{model}.png", dpi=120, bbox_inches="tight")
        pyplot.close(figure)
