"""A server's metrics have the names that users of Triton know, and say what happened."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from serving_fakes import ByHand, Clock, Faulty, MakeByHand, Picture, kind_of

import fxtrt
from fxtrt.errors import QueueFull, ServerClosed, ServingError
from fxtrt.serving.metrics import NoMetrics


@pytest.fixture
def server(by_hand: MakeByHand) -> ByHand:
    return by_hand(name="detector", queue_size=4)


def values(server: fxtrt.Server) -> dict[str, float]:
    """The samples without timestamps, by name and the labels besides the model."""
    from prometheus_client.parser import text_string_to_metric_families

    found = {}
    for family in text_string_to_metric_families(server.metrics().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model") == "detector"
            found[" ".join([sample.name.removeprefix("fxtrt_"), *labels.values()])] = sample.value
    return found


def happen(server: ByHand, clock: Clock, model: Faulty) -> None:
    """One request of each outcome, and one that still waits."""

    def passing() -> None:
        clock.now += 0.25

    futures = [server.submit(Picture(marker, is_bad=marker == 1)) for marker in range(2)]
    futures += [server.submit(Picture(2), timeout=0.1), server.submit(Picture(3))]
    with pytest.raises(QueueFull):
        server.submit(Picture(4))
    futures[3].cancel()
    clock.now += 0.5
    server.expire()
    model.during = passing
    server.serve(0, server.take(0) or [])
    server.submit(Picture(5))


def test_metrics_count_what_happened(server: ByHand, clock: Clock, model: Faulty) -> None:
    pytest.importorskip("prometheus_client")
    happen(server, clock, model)
    expected = {
        "inference_request_success_total": 1,
        "inference_request_failure_total failure": 1,
        "inference_request_failure_total timeout": 1,
        "inference_request_failure_total cancelled": 1,
        "inference_request_failure_total refused": 1,
        "inference_count_total": 4,
        "inference_exec_count_total": 3,
        "inference_exec_failure_total image": 2,
        "inference_queue_duration_us_total": 1e6,
        "inference_compute_infer_duration_us_total": 0.25e6,
        "inference_batch_size_sum": 4,
        "inference_batch_size_count": 3,
        "inference_queue_seconds_count": 2,
        "inference_request_seconds_count": 4,
        "inference_pending_request_count": 1,
        "inference_running_request_count": 0,
        "queue_size": 4,
        "workers": 1,
        "ready": 1,
    }
    found = values(server)
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)
    server.finish(drain=False)
    with pytest.raises(ServerClosed):
        server.submit(Picture(6))
    found = values(server)
    assert found["inference_request_failure_total closed"] == 2
    assert found["ready"] == 0


def test_two_servers_count_apart(server: ByHand) -> None:
    pytest.importorskip("prometheus_client")
    with fxtrt.Server(Faulty(), name="detector", batch_by=kind_of) as other:
        assert other.submit(Picture(0)).result(5)
    assert values(other)["inference_request_success_total"] == 1
    assert values(server)["inference_request_success_total"] == 0


def test_a_server_without_prometheus_works_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with fxtrt.Server(Faulty(), batch_by=kind_of) as server:
        assert isinstance(server._recorder, NoMetrics)
        assert server.submit(Picture(0)).result(5) == ("answer to", 0)
        with pytest.raises(ServingError, match=r"prometheus-client.*fxtrt\[serve\]"):
            server.metrics()


def test_requests_are_spans_of_opentelemetry(
    server: ByHand, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    with provider.get_tracer("client").start_as_current_span("client") as parent:
        server.submit(Picture(0))
        server.submit(Picture(1))
        server.submit(Picture(2, is_bad=True), timeout=9.0)
    clock.now += 0.5
    server.serve(0, server.take(0) or [])
    spans: list[Any] = [one for one in exporter.get_finished_spans() if one.name == "fxtrt.infer"]
    assert [span.parent.span_id for span in spans] == [parent.get_span_context().span_id] * 3
    outcomes = [span.attributes["fxtrt.outcome"] for span in spans]
    assert outcomes == ["success", "success", "failure"]
    assert spans[0].attributes["fxtrt.queue_duration_us"] == 500_000
    assert spans[0].attributes["fxtrt.batch_size"] == 1  # The batch of three failed before.
    assert spans[2].status.status_code is trace.StatusCode.ERROR


def test_a_server_without_opentelemetry_works(
    server: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    future = server.submit(Picture(0))
    server.serve(0, server.take(0) or [])
    assert future.result(0) == ("answer to", 0)
