"""Reads the bodies of HTTP requests in bounded time and memory, and counts those at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..errors import ProtocolError, QueueFull

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Intake", "IntakeLimits", "unless_gone"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """Limits on what a server takes from its clients over HTTP.

    requests:     the most requests at work at once.
    body_bytes:   the most bytes of one body.
    all_bytes:    the most bytes of all bodies in memory at once.
    body_seconds: the time in which a body must arrive.
    """

    requests: int = 1024
    body_bytes: int = 64 << 20
    all_bytes: int = 2 << 30
    body_seconds: float = 30.0


class Intake:
    """Counts requests and bytes. All of it runs in one event loop, so it needs no lock."""

    def __init__(self, limits: IntakeLimits) -> None:
        self.limits = limits
        self._requests = 0
        self._bytes = 0

    @asynccontextmanager
    async def body_of(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body, which counts until the block ends.

        Raises:
            QueueFull: too many requests, or bytes, are at work.
            ProtocolError: the body is too large (status 413), or comes too slowly (408).
        """
        if self._requests >= self.limits.requests:
            raise QueueFull(f"{self._requests} requests are at work already")
        self._requests += 1
        taken = [0]
        try:
            yield await self._read(request, taken)
        finally:
            self._requests -= 1
            self._bytes -= taken[0]

    async def _read(self, request: Request, taken: list[int]) -> bytes:
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.body_bytes:
            raise self._too_large()
        seconds = self.limits.body_seconds
        try:
            return await asyncio.wait_for(self._chunks(request, taken), seconds)
        except asyncio.TimeoutError as error:
            raise ProtocolError(f"the body did not arrive within {seconds:g} s", 408) from error

    async def _chunks(self, request: Request, taken: list[int]) -> bytes:
        chunks = []
        async for chunk in request.stream():
            taken[0] += len(chunk)
            self._bytes += len(chunk)
            if taken[0] > self.limits.body_bytes:
                raise self._too_large()
            if self._bytes > self.limits.all_bytes:
                raise QueueFull(f"{self._bytes} bytes of requests are in memory already")
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> ProtocolError:
        return ProtocolError(f"a body may have {self.limits.body_bytes} bytes", 413)


async def unless_gone(request: Request, answer: Awaitable[_T]) -> _T:
    """Return what is awaited, or cancel it if the client goes away before.

    Raises:
        ClientDisconnect: the client is gone.
    """
    from starlette.requests import ClientDisconnect

    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        gone.cancel()
        work.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
