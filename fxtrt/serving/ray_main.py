"""Runs replicas of a file until a signal ends them, and replaces them at another."""

from __future__ import annotations

import logging
import queue
import signal
from collections.abc import Callable
from typing import Any

from ..errors import ServingError
from .ray_app import RayOptions, deploy, start, stop
from .serve_options import ServeOptions

__all__ = ["serve_with_ray"]

log = logging.getLogger(__name__)

_ENDS = (signal.SIGTERM, signal.SIGINT)
_RELOADS = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()


def serve_with_ray(
    options: ServeOptions,
    ray: RayOptions,
    host: str,
    port: int,
    say: Callable[[str], Any],
    **ray_arguments: Any,
) -> None:
    """Serve a file with replicas until SIGTERM or SIGINT, and answer what was accepted.

    SIGHUP replaces the replicas, and keeps them if the file is not served any more.

    Args:
        say: gets a line once the replicas answer, and after each update.
        ray_arguments: further arguments of `ray.init`.

    Raises:
        ServingError: Ray Serve is not installed, or the replicas do not start.
        ArtifactError: the file is damaged, or does not serve alone.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    try:
        start(host, port, options.timeout, **ray_arguments)
        # Only now, because Ray sets handlers of its own.
        before = {
            kind: signal.signal(kind, lambda kind, _: signals.put(kind))
            for kind in (*_ENDS, *_RELOADS)
        }
        try:
            deploy(options, ray)
            say(
                f"{options.path} is served as {options.model_name!r} at http://{host}:{port}/ by "
                f"{ray.replicas} replicas"
            )
            while _next(signals) not in _ENDS:
                _update(options, ray, say)
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
    finally:
        stop()


def _next(signals: queue.SimpleQueue[int]) -> int:
    """Wait for a signal, in steps: Python runs handlers only between its own instructions."""
    while True:
        try:
            return signals.get(timeout=0.5)
        except queue.Empty:
            continue


def _update(options: ServeOptions, ray: RayOptions, say: Callable[[str], Any]) -> None:
    try:
        deploy(options, ray)
    except ServingError as error:
        log.error("%s", error)
        say(f"{options.path} is not served anew: {error}")
    else:
        say(f"{options.path} is served anew by {ray.replicas} replicas")
