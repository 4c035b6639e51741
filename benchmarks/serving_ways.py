"""Makes the way from a client to a model and back, of which the serving benchmark measures one."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from http_load import HttpClient
from serving_cases import ServingCase
from serving_images import Sent, numbers_of
from torch import Tensor

import fxtrt
from fxtrt.errors import ServingError
from fxtrt.serving.decode import Decoder
from fxtrt.serving.load import Measured, run_load

__all__ = ["Counted", "Way", "open_way"]

_HERE = Path(__file__).resolve().parent
_SOON = 30.0
_CLIENTS = 2


class Counted:
    """Counts the calls of a model and the images in them."""

    def __init__(self, model: Callable[[list[Any]], Any]) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.calls = self.images = 0

    def __call__(self, images: list[Any]) -> Any:
        with self._lock:
            self.calls += 1
            self.images += len(images)
        return self._model(images)


class Pool:
    """A pool of threads that calls the model image by image, all on the default stream."""

    def __init__(self, model: Callable[[list[Any]], Any], threads: int, device: Any) -> None:
        self._model, self._device = model, device
        self._pool = ThreadPoolExecutor(threads, "pool")
        self.waited = 0.0
        self._lock = threading.Lock()

    def submit(self, image: Tensor) -> Future[Any]:
        return self._pool.submit(self._run, image, time.perf_counter())

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, image: Tensor, came: float) -> Any:
        with self._lock:
            self.waited += time.perf_counter() - came
        with torch.no_grad():
            (answer,) = self._model([image if self._device is None else image.to(self._device)])
            return numbers_of(answer)


class Way:
    """A way from a client to the model and back.

    measure: measures one rate: rate, seconds, answers to keep -> Measured.
    ask:     returns the answer for one payload, for the check.
    waited:  returns the seconds that requests have waited in the queue by now, and their number;
             None if nothing counts them.
    counted: counts calls and images.
    submit:  takes a payload and returns the answer's Future; None over HTTP.
    server:  the server, if there is one.
    """

    def __init__(
        self,
        counted: Counted,
        measure: Callable[..., Measured],
        ask: Callable[[Any], Any],
        waited: Callable[[], tuple[float, int] | None],
        submit: Callable[[Any], Future[Any]] | None = None,
        server: fxtrt.Server | None = None,
    ) -> None:
        self.counted, self.measure, self.ask = counted, measure, ask
        self.waited, self.submit, self.server = waited, submit, server


@contextmanager
def open_way(
    case: ServingCase, model: Callable[[list[Any]], Any], sent: Sent, device: torch.device | None
) -> Iterator[Way]:
    """Open the way that a case names.

    Raises:
        ImportError, ServingError: it needs a package that is not installed.
    """
    counted = Counted(model)
    with ExitStack() as stack:
        if case.pool:
            pool = Pool(counted, case.workers, device)
            stack.callback(pool.close)
            yield _in_process(counted, pool.submit, sent, lambda: (pool.waited, counted.images))
            return
        server = stack.enter_context(
            fxtrt.Server(
                counted,
                name="detector",
                workers=case.workers,
                max_batch=case.max_batch,
                max_delay=case.max_delay,
                device=device,
            )
        )
        waited = _queue_time(server)
        if case.http:
            url = stack.enter_context(_http(server))
            yield stack.enter_context(_over_http(case, counted, url, sent, waited, server))
            return
        submit: Callable[[Any], Future[Any]] = server.submit
        if case.form == "jpeg":
            decoder = Decoder(device=device)
            stack.callback(decoder.close)
            submit = _decoding(decoder, server)
        yield _in_process(counted, submit, sent, waited, server)


def _in_process(
    counted: Counted,
    submit: Callable[[Any], Future[Any]],
    sent: Sent,
    waited: Callable[[], tuple[float, int] | None],
    server: fxtrt.Server | None = None,
) -> Way:
    def measure(rate: float, seconds: float, keep: int) -> Measured:
        return run_load(submit, sent.payloads, rate, seconds=seconds, keep=keep)

    return Way(counted, measure, lambda one: submit(one).result(_SOON), waited, submit, server)


def _decoding(decoder: Decoder, server: fxtrt.Server) -> Callable[[bytes], Future[Any]]:
    """Return a function that decodes a file, submits it, and returns the answer's Future."""

    def submit(data: bytes) -> Future[Any]:
        outer: Future[Any] = Future()
        decoder.submit(data).add_done_callback(lambda decoded: _go_on(decoded, outer))
        return outer

    def _go_on(decoded: Future[Tensor], outer: Future[Any]) -> None:
        try:
            server.submit(decoded.result()).add_done_callback(lambda done: _copy(done, outer))
        except Exception as error:
            outer.set_exception(error)

    return submit


def _copy(done: Future[Any], outer: Future[Any]) -> None:
    error = done.exception()
    if error is None:
        outer.set_result(done.result())
    else:
        outer.set_exception(error)


def _queue_time(server: fxtrt.Server) -> Callable[[], tuple[float, int] | None]:
    """Return a function that reads the server's histogram of waiting."""

    def waited() -> tuple[float, int] | None:
        try:
            text = server.metrics().decode()
        except ServingError:  # prometheus-client is not installed
            return None
        found = [
            re.search(rf"^fxtrt_inference_queue_seconds_{end}{{[^}}]*}} (\S+)", text, re.MULTILINE)
            for end in ("sum", "count")
        ]
        if found[0] is None or found[1] is None:
            raise ServingError("the server's metrics have no histogram of waiting")
        return float(found[0].group(1)), int(float(found[1].group(1)))

    return waited


@contextmanager
def _http(server: fxtrt.Server) -> Iterator[str]:
    """Serve over HTTP on a free port while the block runs; images go to the model as they are."""
    from fxtrt.serving.http import HttpSettings
    from fxtrt.serving.http_server import make_http_server

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    settings = HttpSettings(prepare=lambda image: image)
    http = make_http_server(server, "127.0.0.1", 0, settings)
    thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    end = time.monotonic() + _SOON
    while not http.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        http.should_exit = True
        thread.join(_SOON)
        listener.close()


@contextmanager
def _over_http(
    case: ServingCase,
    counted: Counted,
    url: str,
    sent: Sent,
    waited: Callable[[], tuple[float, int] | None],
    server: fxtrt.Server,
) -> Iterator[Way]:
    """Send from other processes, which do not share this one's interpreter lock."""
    bodies, headers, path = _bodies(case.form, sent.payloads)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = [Path(folder, str(number)) for number in range(len(bodies))]
        for file, body in zip(files, bodies, strict=True):
            file.write_bytes(body)
        client = HttpClient(url + path, headers, at_once=1)
        stack.callback(client.close)

        def ask(payload: Any) -> Any:
            (number,) = [i for i, one in enumerate(sent.payloads) if one is payload]
            return _answer(json.loads(client.submit(bodies[number]).result(_SOON)))

        def measure(rate: float, seconds: float, keep: int) -> Measured:
            return _measured_by_processes(url + path, headers, files, rate, seconds)

        yield Way(counted, measure, ask, waited, server=server)


def _bodies(form: str, payloads: Sequence[Any]) -> tuple[list[bytes], dict[str, str], str]:
    """Return the bodies, headers and path of requests."""
    if form == "jpeg":
        return list(payloads), {"Content-Type": "image/jpeg"}, "/detect"
    kinds = {torch.uint8: "UINT8", torch.float32: "FP32"}
    bodies, length = [], 0
    for tensor in payloads:
        raw = tensor.contiguous().numpy().tobytes()
        image = {
            "name": "image",
            "datatype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(raw)},
        }
        header = json.dumps({"inputs": [image]}).encode()
        length = len(header)
        bodies.append(header + raw)
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(length),
    }
    return bodies, headers, "/v2/models/detector/infer"


def _answer(found: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors in the JSON of an answer, in either protocol."""
    if "outputs" not in found:
        return {name: torch.tensor(value) for name, value in found.items() if name != "omitted"}
    return {
        one["name"]: torch.tensor(one["data"]).reshape(one["shape"])
        for one in found["outputs"]
        if one["datatype"] != "BYTES"
    }


def _measured_by_processes(
    url: str,
    headers: dict[str, str],
    files: Sequence[Path],
    rate: float,
    seconds: float,
) -> Measured:
    """Let several processes send a part of the rate each: together these are Poisson arrivals."""
    command = [sys.executable, str(_HERE / "http_load.py"), "--url", url]
    command += ["--type", headers["Content-Type"], "--rate", str(rate / _CLIENTS)]
    command += ["--seconds", str(seconds)]
    if "Inference-Header-Content-Length" in headers:
        command += ["--header-length", headers["Inference-Header-Content-Length"]]
    clients = [
        subprocess.Popen(
            [*command, "--seed", str(number), *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(_CLIENTS)
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            client.stdout.readline()  # It is ready.
        texts = _begun(clients, seconds)
    finally:
        for client in clients:
            with suppress(OSError):
                client.kill()
            client.wait()
    if failed := [client.returncode for client in clients if client.returncode]:
        raise RuntimeError(f"a client ended with status {failed[0]}")
    return _joined([json.loads(text.splitlines()[-1]) for text in texts], rate, seconds)


def _begun(clients: Sequence[subprocess.Popen[str]], seconds: float) -> list[str]:
    """Let all clients begin, and return what they print at their end."""
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    return [client.communicate(timeout=seconds + 240)[0] for client in clients]


def _joined(parts: Sequence[dict[str, Any]], rate: float, seconds: float) -> Measured:
    sent = sum(part["sent"] for part in parts)
    failed: dict[str, int] = {}
    for part in parts:
        for name, count in part["failed"].items():
            failed[name] = failed.get(name, 0) + count
    return Measured(
        rate,
        seconds,
        sent,
        sorted(latency for part in parts for latency in part["latencies"]),
        sum(part["kept_up"] * part["sent"] for part in parts) / max(1, sent),
        sum(part["refused"] for part in parts),
        failed,
        max(part["late"] for part in parts),
    )
