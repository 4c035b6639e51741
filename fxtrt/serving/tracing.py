"""Records each request as an OpenTelemetry span, where OpenTelemetry is installed."""

from __future__ import annotations

from typing import Any

from .request import Request

__all__ = ["end_span", "note_batch", "start_span"]


def start_span(name: str) -> Any:
    """Return a span for a request to the server `name`, a child of the caller's span.

    It is None where OpenTelemetry is not installed, or where the application does not record.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    span = trace.get_tracer("fxtrt").start_span("fxtrt.infer", attributes={"fxtrt.model": name})
    return span if span.is_recording() else None


def note_batch(request: Request, size: int) -> None:
    """Note that the request's answer has come, from a batch of `size` images."""
    if request.span is not None and request.started is not None:
        waited = round(1e6 * (request.started - request.arrived))
        request.span.set_attributes({"fxtrt.batch_size": size, "fxtrt.queue_duration_us": waited})


def end_span(request: Request, outcome: str, error: BaseException | None) -> None:
    """End the request's span with its outcome."""
    if request.span is None:
        return
    from opentelemetry.trace import Status, StatusCode

    request.span.set_attribute("fxtrt.outcome", outcome)
    if error is not None:
        request.span.record_exception(error)
        request.span.set_status(Status(StatusCode.ERROR, str(error)))
    request.span.end()
