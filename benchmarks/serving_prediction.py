"""Compares measured latencies under load with those that the simulation predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxtrt.errors import ServingError
from fxtrt.serving.load import Sweep
from fxtrt.serving.service_times import measure_service_times
from fxtrt.serving.settings import ServerSettings
from fxtrt.serving.simulation import Fleet, simulate

__all__ = ["predictions"]

_COMPARED = 0.8


def predictions(
    model: Callable[[list[Any]], Any],
    images: Sequence[torch.Tensor],
    settings: ServerSettings,
    sweep: Sweep,
    device: torch.device | None,
    seconds: float,
) -> dict[str, Any]:
    """Measure service times, simulate the rates of a sweep, and return both.

    Args:
        seconds: how long each number of images and threads is measured.

    Returns:
        "service": [images, threads, milliseconds] of batches in a closed loop; "simulated": the
        prediction for each rate; "off": the largest relative difference of p50 and p95 among the
        rates up to 80 % of the best. Closer to it, latencies grow without bound, and so does any
        difference.
    """
    times = measure_service_times(
        model,
        images,
        batches=_doubled(settings.max_batch),
        workers=_doubled(settings.workers),
        seconds=seconds,
        device=device,
        answers_on=settings.answers_on,
    )
    service = [[*key, 1e3 * seconds] for key, seconds in sorted(times.seconds.items())]
    fleet = Fleet(
        workers=settings.workers,
        max_batch=settings.max_batch,
        max_delay=settings.max_delay,
        queue_size=settings.queue_size,
        timeout=settings.timeout,
    )
    simulated, off = [], [0.0]
    for point in sweep.points:
        try:
            found = simulate(times, fleet, point.rate, seconds=point.seconds, warm_up=1.0)
        except ServingError as error:  # simpy is not installed
            return {"service": service, "simulated_missing": str(error)}
        shares = {p: 1e3 * found.percentile(p / 100) for p in (50, 95, 99)}
        simulated.append({"rate": point.rate, **{f"p{p}_ms": v for p, v in shares.items()}})
        if sweep.best is not None and point.rate <= _COMPARED * sweep.best.rate:
            measured = {p: 1e3 * point.percentile(p / 100) for p in (50, 95)}
            off += (abs(shares[p] / measured[p] - 1.0) for p in measured)
    return {"service": service, "simulated": simulated, "off": max(off)}


def _doubled(most: int) -> list[int]:
    """Return 1, 2, 4 and so on up to `most`, which is always the last."""
    found = [1]
    while found[-1] * 2 < most:
        found.append(found[-1] * 2)
    return found if most == 1 else [*found, most]
