"""What tests of Ray Serve share: its environment, its replicas, and how much they can do."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from markdown_files import ROOT
from slow_replica import SECONDS

from fxtrt.serving.serve_options import ServeOptions

__all__ = [
    "IN_FLIGHT",
    "SMALL",
    "environment",
    "free_port",
    "infer_url",
    "options",
    "rate_of",
    "replicas",
    "wait_until",
]

SLOTS, BATCH = 4, 1
IN_FLIGHT = 2 * SLOTS * BATCH
"""The most requests that a replica has: those in its slots, and as many again."""
SMALL: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 << 20}
"""Arguments of `ray.init`."""
_MOST_SECONDS = 90.0


def rate_of(count: int) -> float:
    """80 % of the requests in a second that so many replicas can answer."""
    return 0.8 * count * SLOTS * BATCH / SECONDS


def options(path: Path, **more: Any) -> ServeOptions:
    """Replicas of small batches, with a queue that holds what comes while two cores are busy."""
    given = {"queue_size": 2000, "timeout": 60.0, "slots": SLOTS, "max_batch": BATCH, **more}
    return ServeOptions(path=str(path), name="grey", **given)


def infer_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v2/models/grey/infer"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def environment(**more: str) -> Iterator[None]:
    """Processes of Ray find what this one imports, and report to nobody."""
    values = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def replicas() -> list[str]:
    """The names of the actors that are replicas."""
    from ray.util import list_named_actors

    names = [one["name"] for one in list_named_actors(all_namespaces=True)]
    return sorted(name for name in names if name.startswith("SERVE_REPLICA::"))


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, which must come within a minute and a half."""
    end = time.monotonic() + _MOST_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)
