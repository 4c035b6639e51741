"""Lets MLPerf's load generator judge a server in its Server scenario, as an independent witness."""

from __future__ import annotations

import array
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

__all__ = ["witness"]

_FEWEST = 1000
"""The queries without which the generator does not vouch for a 99th percentile."""
_MOST_SECONDS = 60.0


def witness(
    submit: Callable[[Any], Future[Any]],
    images: Sequence[Any],
    rate: float,
    *,
    p99: float,
    seconds: float,
) -> dict[str, Any]:
    """Run the Server scenario, and return its verdict: "VALID", "INVALID" or "skipped" and why.

    Args:
        submit: as for `run_load`.
        rate: the queries in a second, which come at random moments.
        p99: the bound of the latency in seconds.
        seconds: how long queries come, at least.
    """
    try:
        import mlperf_loadgen as loadgen
    except ImportError:
        return {"result": "skipped", "reason": "mlcommons-loadgen is not installed"}
    if _FEWEST / rate > _MOST_SECONDS:
        return {"result": "skipped", "reason": f"{_FEWEST} queries take {_FEWEST / rate:.0f} s"}
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = rate
    settings.server_target_latency_ns = round(1e9 * p99)
    settings.server_target_latency_percentile = 0.99
    settings.min_duration_ms = round(1e3 * seconds)
    settings.min_query_count = max(_FEWEST, round(rate * seconds))
    failures: list[str] = []

    def issue(queries: Sequence[Any]) -> None:
        for query in queries:
            _ask(loadgen, submit, images[query.index], query.id, failures)

    sut = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(len(images), len(images), lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        log = loadgen.LogSettings()
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = False
        log.enable_trace = False
        loadgen.StartTestWithLogSettings(sut, library, settings, log)
        text = Path(folder, "mlperf_log_summary.txt").read_text()
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    return {**_verdict(text), "rate": rate, "failures": failures[:3]}


def _ask(
    loadgen: Any,
    submit: Callable[[Any], Future[Any]],
    image: Any,
    query: int,
    failures: list[str],
) -> None:
    """Submit one query, and tell the generator when it has ended; one that fails ends late."""

    def done(future: Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            failures.append(repr(None if future.cancelled() else future.exception()))
        empty = array.array("B", b"\0")
        response = loadgen.QuerySampleResponse(query, empty.buffer_info()[0], len(empty))
        loadgen.QuerySamplesComplete([response])

    try:
        submit(image).add_done_callback(done)
    except Exception as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        done(failed)


def _verdict(summary: str) -> dict[str, Any]:
    """Return what a summary says: the result, the p99 in milliseconds and the rate."""
    found: dict[str, Any] = {}
    result = re.search(r"Result is : (\w+)", summary)
    found["result"] = result.group(1) if result else "unreadable"
    for name, pattern, scale in (
        ("p99_ms", r"99\.00 percentile latency \(ns\)\s*: ([\d.]+)", 1e-6),
        ("completed_per_second", r"Completed samples per second\s*: ([\d.]+)", 1.0),
    ):
        if (number := re.search(pattern, summary)) is not None:
            found[name] = float(number.group(1)) * scale
    return found
