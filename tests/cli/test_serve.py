"""`fxtrt serve` answers over HTTP, ends when told to, and says in a line why it does not start."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from command_line import run
from ray_replicas import environment, free_port
from served_files import change_weights, means_file
from serving_fakes import SOON

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from fxtrt.serving.http_server import serve
from fxtrt.serving.server import Server

HALF = json.dumps(
    {"inputs": [{"name": "image", "datatype": "FP32", "shape": [3, 6, 8], "data": [0.5] * 144}]}
).encode()


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("served") / "means.fxtrt"
    return means_file(path)


@contextmanager
def serving(*arguments: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`fxtrt serve` in a process of its own, and its port."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "fxtrt", "serve", *arguments, "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert found, line + process.communicate()[1]
            yield process, int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_it_answers_and_ends_after_what_it_accepted(means: Path) -> None:
    options = ["--slots", "2", "--max-batch", "3", "--max-delay", "5ms", "--timeout", "20s"]
    with serving(str(means), "--name", "grey", *options) as (process, port):
        status = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
        status.request("GET", "/status")
        state = json.loads(status.getresponse().read())
        assert state["name"] == "grey"
        assert state["settings"] == {
            "workers": 2,
            "max_batch": 3,
            "max_delay": pytest.approx(0.005),
            "queue_size": 256,
            "timeout": 20.0,
        }
        status.close()
        # The server is told to end while this request is only half there.
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
        asking.putrequest("POST", "/v2/models/grey/infer")
        asking.putheader("Content-Length", str(len(HALF)))
        asking.endheaders(HALF[:100])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        asking.send(HALF[100:])
        reply = asking.getresponse()
        assert reply.status == 200
        outputs = {one["name"]: one["data"] for one in json.loads(reply.read())["outputs"]}
        assert outputs["mean"] == pytest.approx([0.5])
        asking.close()
        _, said = process.communicate(timeout=SOON)
        assert (process.returncode, said) == (0, "")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port))


@pytest.mark.nightly
@pytest.mark.slow
def test_replicas_are_replaced_at_sighup_and_end_at_sigterm(means: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    path, port = tmp_path / "grey.fxtrt", free_port()
    path.write_bytes(means.read_bytes())
    with environment(), serving(str(path), "--replicas", "1", port=port) as (process, _):
        assert process.stdout is not None

        def mean() -> float:
            asking = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
            asking.request("POST", "/v2/models/grey/infer", HALF)
            outputs = json.loads(asking.getresponse().read())["outputs"]
            asking.close()
            return float(next(one["data"][0] for one in outputs if one["name"] == "mean"))

        assert mean() == pytest.approx(0.5)
        change_weights(path)
        process.send_signal(signal.SIGHUP)
        assert "not served anew: the replicas are not replaced" in process.stdout.readline()
        assert mean() == pytest.approx(0.5)
        means_file(path, factor=2.0)
        process.send_signal(signal.SIGHUP)
        assert "is served anew by 1 replicas" in process.stdout.readline()
        assert mean() == pytest.approx(1.0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_errors_are_one_line(
    means: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, damaged = tmp_path / "changed.fxtrt", tmp_path / "damaged.fxtrt"
    changed.write_bytes(means.read_bytes())
    change_weights(changed)
    damaged.write_bytes(means.read_bytes()[:-100])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in [
            ([str(means), "--port", str(port)], f"cannot listen on 127.0.0.1 port {port}: Address"),
            ([str(means), "--host", "nowhere.invalid"], "cannot listen on nowhere.invalid"),
            ([str(changed), "--port", "0"], "otherwise than when it was saved: "),
            ([str(damaged), "--port", "0"], "cut short"),
            ([str(means), "--port", "0", "--engine", "best"], "engine"),
            ([str(means), "--port", str(port), "--replicas", "2"], "cannot listen on 127.0.0.1"),
        ]:
            assert run(monkeypatch, "serve", *arguments) == 2
            said = capsys.readouterr().err
            assert message in said
            assert said.count("\n") == 1
    assert run(monkeypatch, "serve", str(means), "--max-delay", "soon") == 2
    assert "'soon' is no time, as 50ms or 2s" in capsys.readouterr().err


def test_a_server_whose_device_fails_ends_with_status_1() -> None:
    def broken(images: list[torch.Tensor]) -> list[torch.Tensor]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    server = Server(broken)
    assert server.submit(torch.zeros(1)).exception(SOON) is not None
    assert not serve(server, port=0)
