"""Bad, huge, slow and too many requests get a 4xx or a 503, and the next good one is answered."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx
from fuzzing import fuzz
from http_server import http_server
from hypothesis import strategies as st
from PIL import Image
from png_bomb import bomb
from serving_fakes import SOON

from fxtrt.errors import ProtocolError
from fxtrt.serving.decode import ImageLimits
from fxtrt.serving.http import HttpSettings
from fxtrt.serving.intake import IntakeLimits
from fxtrt.serving.protocol import read_request

SETTINGS = HttpSettings(
    intake=IntakeLimits(body_bytes=100_000, body_seconds=0.3),
    image=ImageLimits(bytes=50_000, pixels=10_000),
)
INFER = "/v2/models/detector/infer"


def png() -> bytes:
    file = BytesIO()
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def shapes(images: list[torch.Tensor]) -> list[dict[str, Any]]:
    return [{"size": torch.tensor(image.shape)} for image in images]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        http_server(shapes, SETTINGS, header_seconds=0.3) as (address, _),
        httpx.Client(base_url=f"http://{address}", timeout=SOON) as made,
    ):
        yield made


def good(client: httpx.Client) -> bool:
    """Whether the server still answers."""
    found: dict[str, Any] = client.post("/detect", content=png()).json()
    return found == {"size": [3, 8, 9]}


def tensor(**changes: Any) -> bytes:
    """A request with a small image, and changes of its input."""
    entry = {"name": "image", "datatype": "FP32", "shape": [3, 1, 2], "data": [0.5] * 6}
    return json.dumps({"inputs": [{**entry, **changes}]}).encode()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 415, "neither a JPEG nor a PNG"),
        (b"GIF89a", 415, "neither a JPEG nor a PNG"),
        (png()[:40], 400, "truncated"),
        (bomb(10_000, 10_000), 413, "pixels"),
        (bytes(60_000), 413, "50000 are allowed"),
        (bytes(200_000), 413, "100000 bytes"),
    ],
)
def test_bad_files(client: httpx.Client, body: bytes, status: int, message: str) -> None:
    reply = client.post("/detect", content=body)
    assert (reply.status_code, message in reply.json()["error"]) == (status, True)
    assert good(client)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 90_000, 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"{}", 400, "one input"),
        (tensor(data=[float("nan")] * 6), 400, "not finite"),
        (tensor(data=[1e300] * 6), 400, "not finite"),
        (tensor(data=["x"] * 6), 400, "no numbers"),
        (tensor(data=[[1], [1, 2]]), 400, "no numbers"),
        (tensor(data=[1.0] * 5), 400, "5 numbers"),
        (tensor(data=None), 400, "no numbers"),
        (tensor(datatype="UINT8", data=[256] * 6), 400, "from 0 to 255"),
        (tensor(datatype="UINT8", data=[-1] * 6), 400, "from 0 to 255"),
        (tensor(datatype="UINT8"), 400, "not whole"),
        (tensor(datatype="FP128"), 400, "FP128"),
        (tensor(datatype="BYTES", shape=[1]), 400, "binary data"),
        (tensor(shape=[3, 100_000, 100_000]), 413, "pixels"),
        (tensor(shape=[3, 0, 2]), 400, "above 0"),
        (tensor(shape=[1, 3, 1, 2]), 400, r"[3, height, width]"),
        (tensor(shape="abc"), 400, "whole numbers"),
        (tensor(parameters={"shared_memory_region": "x"}), 400, "shared_memory_region"),
        (tensor(parameters={"binary_data_size": 24}), 400, "binary_data_size"),
    ],
)
def test_bad_tensors(client: httpx.Client, body: bytes, status: int, message: str) -> None:
    reply = client.post(INFER, content=body)
    assert (reply.status_code, message in reply.json()["error"]) == (status, True), reply.text
    assert good(client)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/detect", {"content-type": "text/html"}, 415),
        ("/detect", {"content-encoding": "gzip"}, 415),
        ("/detect?min_score=nan", {}, 400),
        (INFER, {"content-type": "image/png"}, 415),
        (INFER, {"Inference-Header-Content-Length": "-1"}, 400),
        (INFER, {"Inference-Header-Content-Length": "99999999"}, 400),
        (INFER, {"Inference-Header-Content-Length": "9" * 5000}, 400),
        ("/v2/models/other/infer", {}, 404),
        ("/v2/models/detector/versions/2/infer", {}, 404),
        ("/nowhere", {}, 404),
        ("/v2/health/live", {}, 405),
    ],
)
def test_bad_headers_and_paths(
    client: httpx.Client, path: str, headers: dict[str, str], status: int
) -> None:
    reply = client.post(path, content=png(), headers=headers)
    assert reply.status_code == status
    assert reply.json()["error"]
    assert good(client)


def test_any_bytes_are_read_or_refused() -> None:
    def check(changes: list[tuple[int, int]], length: int | None) -> None:
        body = bytearray(tensor() + bytes(24))
        for at, value in changes:
            body[at % len(body)] = value
        try:
            image = read_request(bytes(body), length, 10_000).image
        except ProtocolError as error:
            assert 400 <= error.status < 500  # noqa: PT017  # either may come
        else:
            assert isinstance(image, torch.Tensor | bytes)

    changes = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)
    lengths = st.sampled_from([None, len(tensor()), 5, 10_000])
    fuzz(check, changes, lengths, examples=300)


def raw(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), SOON)


def test_a_header_that_does_not_come_ends_its_connection(client: httpx.Client) -> None:
    for beginning in (b"", b"POST /detect HTTP/1.1\r\nHost: x\r\nX-A"):
        with raw(client) as slow:
            slow.sendall(beginning)
            assert slow.recv(100).startswith(b"HTTP/1.1 400")
    assert good(client)


def test_a_header_is_awaited_anew_after_each_answer(client: httpx.Client) -> None:
    with raw(client) as kept:
        kept.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /v2")
        data = b""
        while part := kept.recv(1000):
            data += part
    assert data.count(b"HTTP/1.1 200") == 1
    assert data.count(b"HTTP/1.1 400") == 1


def test_a_body_that_does_not_come_gets_408(client: httpx.Client) -> None:
    with raw(client) as slow:
        slow.sendall(b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert good(client)


def test_a_body_without_a_length_is_cut_off(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    # The server may answer and close before all of it is sent.
    with suppress(httpx.WriteError):
        assert client.post("/detect", content=chunks()).status_code == 413
    assert good(client)


def test_too_many_clients_are_told_to_come_back() -> None:
    def slow(images: list[Any]) -> list[Any]:
        time.sleep(0.01)
        return shapes(images)

    async def one(client: httpx.AsyncClient) -> int:
        reply = await client.post("/detect", content=png())
        if reply.status_code == 503:
            assert int(reply.headers["retry-after"]) >= 1
        return reply.status_code

    async def all_of_them(address: str) -> Counter[int]:
        limits = httpx.Limits(max_connections=None)
        base = f"http://{address}"
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=SOON) as client:
            return Counter(await asyncio.gather(*(one(client) for _ in range(200))))

    settings = HttpSettings(intake=IntakeLimits(requests=60))
    with http_server(slow, settings, queue_size=8, max_batch=1) as (address, server):
        statuses = asyncio.run(all_of_them(address))
        assert set(statuses) == {200, 503}
        assert sum(statuses.values()) == 200
        assert statuses[200] >= 8
        assert server.live
        assert httpx.post(f"http://{address}/detect", content=png()).status_code == 200


def test_a_client_that_goes_away_takes_its_request_along() -> None:
    go_on, ran = threading.Event(), []

    def waiting(images: list[Any]) -> list[Any]:
        assert go_on.wait(SOON)
        ran.append(len(images))
        return shapes(images)

    def until(queued: int) -> None:
        end = time.monotonic() + SOON
        while server.health().queued != queued and time.monotonic() < end:
            time.sleep(0.002)
        assert server.health().queued == queued

    with http_server(waiting) as (address, server):
        first = server.submit(torch.zeros(3, 8, 9))
        while not server.health().running:
            time.sleep(0.001)
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), SOON) as gone:
            size = str(len(png())).encode()
            head = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: " + size
            gone.sendall(head + b"\r\n\r\n" + png())
            until(1)
        until(0)
        go_on.set()
        first.result(SOON)
    assert ran == [1]


def test_a_model_that_fails_gets_500_and_a_closed_server_503() -> None:
    def failing(images: list[Any]) -> list[Any]:
        raise KeyError("weights")

    with http_server(failing) as (address, server):
        reply = httpx.post(f"http://{address}/detect", content=png())
        assert (reply.status_code, "KeyError" in reply.json()["error"]) == (500, True)
        server.close()
        reply = httpx.post(f"http://{address}/detect", content=png())
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"
        assert httpx.get(f"http://{address}/v2/health/ready").status_code == 503
        assert httpx.get(f"http://{address}/v2/health/live").status_code == 200
