"""Sends requests to a server of `Means` at a steady rate, and judges every answer."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from served_files import SIDES

__all__ = ["Flood", "flood"]

_VALUES = 1000
"""So many requests, one after the other, have different images."""
_SECONDS = 60.0
"""How long an answer may take."""


def _body(number: int) -> bytes:
    data = [number % _VALUES / _VALUES] * (3 * SIDES[0] * SIDES[1])
    image = {"name": "image", "datatype": "FP32", "shape": [3, *SIDES], "data": data}
    return json.dumps({"id": str(number), "inputs": [image]}).encode()


def _outcome(number: int, reply: httpx.Response) -> str:
    if reply.status_code != 200:
        hint = " with Retry-After" if "retry-after" in reply.headers else ""
        return f"{reply.status_code}{hint}"
    answer = reply.json()
    (mean,) = next(one["data"] for one in answer["outputs"] if one["name"] == "mean")
    is_right = abs(mean - number % _VALUES / _VALUES) < 1e-4 and answer["id"] == str(number)
    return "right" if is_right else "wrong"


class Flood:
    """What became of the requests so far: "right", "wrong", a status, or no reply at all."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = iter(range(1 << 30))
        self.outcomes: Counter[str] = Counter()
        self.sent = 0
        self.is_over = False

    async def ask(self, client: httpx.AsyncClient) -> None:
        """Send the next request, and note what becomes of it."""
        number = next(self._numbers)
        self.sent += 1
        try:
            reply = await client.post(self._url, content=_body(number))
            outcome = _outcome(number, reply)
        except httpx.HTTPError as error:
            outcome = f"no reply: {type(error).__name__}"
        self.outcomes[outcome] += 1

    async def steady(self, rate: float) -> None:
        """Send `rate` requests in a second, however long answers take, until it is over."""
        async with _client() as client:
            tasks = set()
            start, due = time.monotonic(), 0
            while not self.is_over:
                while due < rate * (time.monotonic() - start):
                    tasks.add(asyncio.ensure_future(self.ask(client)))
                    due += 1
                tasks = {task for task in tasks if not task.done()}
                await asyncio.sleep(0.005)
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=_SECONDS)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    async def crowd(self, clients: int, seconds: float) -> None:
        """Let so many clients ask again as soon as they have an answer."""
        end = time.monotonic() + seconds

        async def one(client: httpx.AsyncClient) -> None:
            while time.monotonic() < end:
                await self.ask(client)

        async with _client() as client:
            await asyncio.gather(*(one(client) for _ in range(clients)))


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=_SECONDS, limits=limits)


@contextmanager
def flood(url: str, rate: float) -> Iterator[Flood]:
    """Send requests while the block runs; at its end all have their outcome."""
    made = Flood(url)
    thread = threading.Thread(target=lambda: asyncio.run(made.steady(rate)), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.is_over = True
        thread.join(2 * _SECONDS)
        assert not thread.is_alive()
    assert sum(made.outcomes.values()) == made.sent
