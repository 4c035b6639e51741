"""Clients get detections over HTTP, by tritonclient and by plain requests."""

from __future__ import annotations

from collections.abc import Iterator
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
from http_server import http_server
from PIL import Image

PIXELS = (np.arange(3 * 20 * 30) % 251).astype(np.uint8).reshape(3, 20, 30)


def encoded(kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(PIXELS.transpose(1, 2, 0).copy()).save(file, kind)
    return file.getvalue()


PNG = encoded("PNG")


def detector(images: list[torch.Tensor]) -> list[dict[str, Any]]:
    """Two detections in each image, which tell what the image was."""
    assert all(image.dtype == torch.float32 for image in images)
    means = [image.mean() for image in images]
    return [
        {
            "boxes": torch.stack([m, m, m + 1, m + 1]).repeat(2, 1),
            "labels": torch.tensor([1, 2]),
            "scores": torch.tensor([0.9, 0.1]),
            "segments_info": [{"id": 1}],
        }
        for m in means
    ]


MEAN = float(torch.from_numpy(PIXELS).float().div(255).mean())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http_server(detector) as (address, _):
        yield address


def test_detect_answers_a_file_with_json(address: str) -> None:
    reply = httpx.post(
        f"http://{address}/detect", content=PNG, headers={"content-type": "image/png"}
    )
    assert reply.status_code == 200
    found = reply.json()
    assert found["boxes"] == pytest.approx(np.array([[MEAN, MEAN, MEAN + 1, MEAN + 1]] * 2))
    assert found["labels"] == [1, 2]
    assert found["segments_info"] == [{"id": 1}]
    few = httpx.post(f"http://{address}/detect?min_score=0.5", content=PNG).json()
    assert (few["labels"], len(few["boxes"])) == ([1], 1)


def test_health_metadata_and_metrics(address: str) -> None:
    with httpx.Client(base_url=f"http://{address}") as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/detector/ready"):
            assert client.get(path).status_code == 200
        client.post("/detect", content=PNG)
        about = client.get("/v2/models/detector/versions/1").json()
        assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [3, -1, -1]}]
        assert client.get("/v2").json()["name"] == "fxtrt"
        pytest.importorskip("prometheus_client")
        text = client.get("/metrics").text
        assert 'fxtrt_inference_request_success_total{model="detector"}' in text


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_works_unchanged(address: str, binary: bool) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("detector")
        assert client.get_model_repository_index()[0]["state"] == "READY"
        image = triton.InferInput("image", list(PIXELS.shape), "UINT8")
        image.set_data_from_numpy(PIXELS, binary_data=binary)
        every = client.infer("detector", [image], request_id="7", timeout=5_000_000)
        assert every.get_response()["id"] == "7"
        assert every.as_numpy("boxes")[0, 0] == pytest.approx(MEAN)
        names = ("scores", "labels", "segments_info")
        asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        some = client.infer("detector", [image], outputs=asked)
        assert some.as_numpy("scores") == pytest.approx([0.9, 0.1])
        assert some.as_numpy("labels").tolist() == [1, 2]
        assert [one["name"] for one in some.get_response()["outputs"]] == list(names)
        assert client.get_model_metadata("detector")["outputs"][1]["datatype"] == "INT64"
        assert client.get_model_config("detector")["max_batch_size"] == 0


def test_tritonclient_sends_files_and_floats(address: str) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    floats = PIXELS.astype(np.float32) / 255
    with triton.InferenceServerClient(address) as client:
        file = triton.InferInput("image", [1], "BYTES")
        file.set_data_from_numpy(np.array([PNG], dtype=np.object_))
        image = triton.InferInput("image", list(floats.shape), "FP32")
        image.set_data_from_numpy(floats)
        for one in (file, image):
            boxes = client.infer("detector", [one]).as_numpy("boxes")
            assert boxes[0, 0] == pytest.approx(MEAN)


def test_tritonclient_gets_errors_with_their_reasons(address: str) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    utils = pytest.importorskip("tritonclient.utils")
    with triton.InferenceServerClient(address) as client:
        image = triton.InferInput("image", list(PIXELS.shape), "UINT8")
        image.set_data_from_numpy(PIXELS)
        with pytest.raises(utils.InferenceServerException, match="no model 'other'"):
            client.infer("other", [image])
        with pytest.raises(utils.InferenceServerException, match="no output masks"):
            client.infer("detector", [image], outputs=[triton.InferRequestedOutput("masks")])
        with pytest.raises(utils.InferenceServerException, match="sequence_id"):
            client.infer("detector", [image], sequence_id=3)
