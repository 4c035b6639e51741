"""Counts what a server does, as metrics of prometheus-client where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ServingError
from .faults import Fault

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["NoMetrics", "PrometheusMetrics", "Recorder", "make_recorder"]

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)

Gauges = Callable[[], dict[str, float]]
Fallbacks = Callable[[], Iterable[tuple[str, int, int]]]


class Recorder(Protocol):
    """Where a server notes what happens. Any thread may call it."""

    def refused(self, outcome: str) -> None:
        """Note a request that was not accepted: "refused" by a full queue, or "closed"."""

    def started(self, waited: float) -> None:
        """Note a request that waited so many seconds in the queue."""

    def ran(self, size: int, seconds: float) -> None:
        """Note a run of the model with `size` images, also one that failed."""

    def failed(self, fault: Fault) -> None:
        """Note a run that failed."""

    def finished(self, outcome: str, seconds: float) -> None:
        """Note a settled request, so many seconds after it came.

        Args:
            outcome: "success", "failure", "timeout", "cancelled" or "closed".
        """

    def exposed(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        ...


class NoMetrics:
    """Notes nothing."""

    def refused(self, outcome: str) -> None: ...

    def started(self, waited: float) -> None: ...

    def ran(self, size: int, seconds: float) -> None: ...

    def failed(self, fault: Fault) -> None: ...

    def finished(self, outcome: str, seconds: float) -> None: ...

    def exposed(self) -> bytes:
        raise ServingError(
            "metrics need the package prometheus-client, which is not installed: "
            'pip install "fxtrt[serve]"'
        )


def make_recorder(name: str, gauges: Gauges, fallbacks: Fallbacks) -> Recorder:
    """Return a recorder for the server `name`, which notes nothing without prometheus-client.

    Args:
        gauges: values now, by the ends of their metrics' names.
        fallbacks: each module's path, compiled calls and calls that ran in PyTorch.
    """
    try:
        import prometheus_client  # noqa: F401  # only whether it is there
    except ImportError:
        return NoMetrics()
    return PrometheusMetrics(name, gauges, fallbacks)


class PrometheusMetrics:
    """Triton's metrics with the prefix `fxtrt_` in place of `nv_`, and histograms besides.

    Each server has a registry of its own, and the label `model` has its name.
    """

    def __init__(self, name: str, gauges: Gauges, fallbacks: Fallbacks) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()

        def counter(end: str, text: str, *labels: str) -> Any:
            full = f"fxtrt_inference_{end}"
            made = Counter(full, text, ("model", *labels), registry=self.registry)
            return made if labels else made.labels(name)

        def histogram(end: str, text: str, buckets: tuple[float, ...]) -> Any:
            full = f"fxtrt_inference_{end}"
            made = Histogram(full, text, ("model",), buckets=buckets, registry=self.registry)
            return made.labels(name)

        self._name = name
        self._success = counter("request_success", "requests answered by the model")
        self._failure = counter("request_failure", "requests that got an error", "reason")
        self._count = counter("count", "images that the model ran")
        self._exec_count = counter("exec_count", "runs of the model")
        self._exec_failure = counter("exec_failure", "runs that failed, by what about", "fault")
        self._request_us = counter("request_duration_us", "time of requests, queue included")
        self._queue_us = counter("queue_duration_us", "time of requests in the queue")
        self._infer_us = counter("compute_infer_duration_us", "time of runs on the device")
        self._latency = histogram("request_seconds", "time of a request", _SECONDS)
        self._waited = histogram("queue_seconds", "time of a request in the queue", _SECONDS)
        self._ran = histogram("compute_infer_seconds", "time of a run", _SECONDS)
        self._sizes = histogram("batch_size", "images in a run", _SIZES)
        self.registry.register(_Current(name, gauges, fallbacks))

    def refused(self, outcome: str) -> None:
        self._failure.labels(self._name, outcome).inc()

    def started(self, waited: float) -> None:
        self._queue_us.inc(1e6 * waited)
        self._waited.observe(waited)

    def ran(self, size: int, seconds: float) -> None:
        self._count.inc(size)
        self._exec_count.inc()
        self._infer_us.inc(1e6 * seconds)
        self._ran.observe(seconds)
        self._sizes.observe(size)

    def failed(self, fault: Fault) -> None:
        self._exec_failure.labels(self._name, fault.value).inc()

    def finished(self, outcome: str, seconds: float) -> None:
        if outcome == "success":
            self._success.inc()
        else:
            self._failure.labels(self._name, outcome).inc()
        self._request_us.inc(1e6 * seconds)
        self._latency.observe(seconds)

    def exposed(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class _Current:
    """Collects what is asked for when metrics are read: queue, workers and fallbacks."""

    def __init__(self, name: str, gauges: Gauges, fallbacks: Fallbacks) -> None:
        self._name = name
        self._gauges = gauges
        self._fallbacks = fallbacks

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for end, value in self._gauges().items():
            gauge = GaugeMetricFamily(f"fxtrt_{end}", end.replace("_", " "), labels=["model"])
            gauge.add_metric([self._name], value)
            yield gauge
        labels = ["model", "module"]
        compiled = CounterMetricFamily("fxtrt_compiled_calls", "calls as compiled", labels=labels)
        fallen = CounterMetricFamily("fxtrt_fallback_calls", "calls in PyTorch", labels=labels)
        for path, good, bad in self._fallbacks():
            compiled.add_metric([self._name, path], good)
            fallen.add_metric([self._name, path], bad)
        yield compiled
        yield fallen
