"""Runs an HTTP server over a model in a thread, for tests that talk to it over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from serving_fakes import SOON

import fxtrt
from fxtrt.serving.http import HttpSettings
from fxtrt.serving.http_server import PatientProtocol, make_http_server

__all__ = ["http_server"]


@contextmanager
def http_server(
    model: Any, settings: HttpSettings | None = None, header_seconds: float = SOON, **options: Any
) -> Iterator[tuple[str, fxtrt.Server]]:
    """Serve a model while the block runs, on a port that is free: "127.0.0.1:12345"."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    with fxtrt.Server(model, **{"name": "detector", **options}) as server:
        http = make_http_server(server, "127.0.0.1", 0, settings)
        http.config.http = type("Quick", (PatientProtocol,), {"header_seconds": header_seconds})
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        end = time.monotonic() + SOON
        while not http.started and time.monotonic() < end:
            time.sleep(0.005)
        yield f"127.0.0.1:{listener.getsockname()[1]}", server
        http.should_exit = True
        thread.join(SOON)
        assert not thread.is_alive()
    listener.close()
