"""Sends requests over HTTP at random moments from this process, and prints what it measured.

    python benchmarks/http_load.py --url http://127.0.0.1:8000/detect --type image/jpeg \\
        --rate 100 --seconds 5 FILE ...

The bodies are the files, in turns. It prints "ready", begins when a line comes on its standard
input, so that several processes begin together, and then prints what it measured as JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from fxtrt.errors import QueueFull, ServingError
from fxtrt.serving.load import run_load

__all__ = ["HttpClient"]

_MOST_AT_ONCE = 512


class HttpClient:
    """Posts bodies, each in a thread of its own with a connection that stays open."""

    def __init__(self, url: str, headers: dict[str, str], at_once: int = _MOST_AT_ONCE) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._headers = headers
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._pool = ThreadPoolExecutor(at_once, "client")

    def submit(self, body: bytes) -> Future[bytes]:
        """Post a body at once, unless 512 others have no answer yet."""
        return self._pool.submit(self._post, body)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        for connection in self._connections:
            connection.close()

    def _post(self, body: bytes) -> bytes:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
            self._local.connection = connection
            self._connections.append(connection)
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            answer: bytes = response.read()
        except BaseException:
            connection.close()
            raise
        if response.status == 503:
            raise QueueFull(answer.decode(errors="replace")[:200])
        if response.status != 200:
            raise ServingError(f"status {response.status}: {answer[:200]!r}")
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--url", required=True)
    parser.add_argument("--type", default="application/octet-stream")
    parser.add_argument("--header-length", help="of the JSON before binary data")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    headers = {"Content-Type": arguments.type}
    if arguments.header_length:
        headers["Inference-Header-Content-Length"] = arguments.header_length
    client = HttpClient(arguments.url, headers)
    bodies = [path.read_bytes() for path in arguments.files]
    print("ready", flush=True)
    sys.stdin.readline()
    found = run_load(
        client.submit,
        bodies,
        arguments.rate,
        seconds=arguments.seconds,
        warm_up=arguments.warm_up,
        seed=arguments.seed,
    )
    client.close()
    fields = ("sent", "kept_up", "refused", "failed", "late")
    record = {name: getattr(found, name) for name in fields}
    print(json.dumps({**record, "latencies": list(found.latencies)}))


if __name__ == "__main__":
    main()
