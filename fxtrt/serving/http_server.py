"""Runs the HTTP application with uvicorn, and closes connections whose requests do not come."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .http import HttpSettings, create_app
from .server import Server

__all__ = ["PatientProtocol", "make_http_server", "serve"]

_HEADER_SECONDS = 10.0
_LOOK_SECONDS = 1.0
"""The seconds between two looks of `serve` at whether the server is live."""


class PatientProtocol(H11Protocol):
    """Closes a connection on which the header of a request takes longer than ten seconds.

    uvicorn itself waits without end for the first header, and for the rest of any other.
    """

    header_seconds = _HEADER_SECONDS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A connection on which nothing has come since has uvicorn's own time to stay.
        if self.conn.trailing_data[0]:
            self._wait_for_header()

    def _wait_for_header(self) -> None:
        """Start the time for a header, unless it has come or the time runs already."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.send_400_response("The request did not arrive in time.")


def make_http_server(
    server: Server, host: str, port: int, settings: HttpSettings | None = None, **options: Any
) -> uvicorn.Server:
    """Return an HTTP server over `server`; its `run` ends with SIGTERM or SIGINT.

    Args:
        options: further options of `uvicorn.Config`.
    """
    app = create_app(server, settings)
    options = {"access_log": False, "log_level": "warning", **options}
    config = uvicorn.Config(app, host=host, port=port, http=PatientProtocol, ws="none", **options)
    return uvicorn.Server(config)


def serve(
    server: Server,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: HttpSettings | None = None,
    *,
    sockets: list[socket.socket] | None = None,
) -> bool:
    """Serve over HTTP until SIGTERM or SIGINT, answer what was accepted, and close the server.

    It also ends once the server is not live any more, since only a new process helps then.

    Args:
        sockets: listening ones, instead of `host` and `port`.

    Returns:
        Whether all that was accepted has been answered, and the server was live at the end.
    """
    http = make_http_server(server, host, port, settings)
    ended = threading.Event()
    watch = threading.Thread(target=_end_if_dead, args=(server, http, ended), daemon=True)
    watch.start()
    try:
        with _kept_signals():
            http.run(sockets=sockets)
        lives = server.live
        return server.close() and lives
    finally:
        ended.set()
        server.close(drain=False)


def _end_if_dead(server: Server, http: uvicorn.Server, ended: threading.Event) -> None:
    while not ended.wait(_LOOK_SECONDS):
        if not server.live:
            http.should_exit = True


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Keep signals from ending the process in the block: uvicorn raises them again at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.signal(kind, lambda *_: None) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
