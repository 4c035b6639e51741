"""An exported Triton repository: Triton's own schema reads its configuration, and its model.py
answers a stand-in of Triton's Python backend. Triton itself is not run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from served_files import OPTIONS, means_file

pytest.importorskip("torchvision", reason="torchvision is not installed")

from small_torchvision import images, small_rcnn
from torchvision.models.detection import FasterRCNN

import fxtrt

pytestmark = pytest.mark.usefixtures("no_grad")


@dataclass
class Tensor:
    """A stand-in of `triton_python_backend_utils.Tensor`."""

    name: str
    array: Any

    def as_numpy(self) -> Any:
        return self.array


class TritonError(str):
    """A stand-in of `triton_python_backend_utils.TritonError`."""


@dataclass
class Response:
    """A stand-in of `triton_python_backend_utils.InferenceResponse`."""

    output_tensors: list[Tensor]
    error: TritonError | None = None


@dataclass
class Request:
    """A stand-in of `triton_python_backend_utils.InferenceRequest`."""

    image: Any
    outputs: list[str] = field(default_factory=list)

    def requested_output_names(self) -> list[str]:
        return self.outputs


@pytest.fixture
def _backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that Triton gives its Python processes, as far as a model uses it."""
    made: Any = ModuleType("triton_python_backend_utils")
    made.Tensor, made.TritonError, made.InferenceResponse = Tensor, TritonError, Response
    made.get_input_tensor_by_name = lambda request, name: Tensor(name, request.image)
    monkeypatch.setitem(sys.modules, made.__name__, made)


def config_of(home: Path) -> dict[str, Any]:
    """config.pbtxt, read by Triton's own schema, as the JSON that Triton gives to models."""
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed"
    )
    from google.protobuf import json_format, text_format

    read = text_format.Parse((home / "config.pbtxt").read_text(), schema.ModelConfig())
    found: dict[str, Any] = json_format.MessageToDict(read, preserving_proto_field_name=True)
    return found


def loaded(home: Path, config: dict[str, Any]) -> Any:
    """The model of a folder, made as Triton does."""
    spec = spec_from_file_location("exported_model", home / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(home),
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
        }
    )
    return model


def answers(response: Response) -> dict[str, Any]:
    assert response.error is None, response.error
    return {tensor.name: tensor.array for tensor in response.output_tensors}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[Any], Any]]:
    path: Path = tmp_path_factory.mktemp("triton") / "small.fxtrt"
    with torch.no_grad():
        fast = fxtrt.compile(small_rcnn(FasterRCNN), (images(1),), most_images=2, **OPTIONS)
        fxtrt.save(fast, path, weights=True)
    return path, fast


@pytest.mark.usefixtures("_backend")
def test_a_detector_answers_batches_of_requests(
    detector: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fast = detector
    arguments = [str(path), str(tmp_path), "--name", "street", "--max-delay", "2ms"]
    assert run(monkeypatch, "export-triton", *arguments) == 0
    config = config_of(tmp_path / "street")
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("street", "python", 2)
    (image,) = config["input"]
    assert (image["data_type"], image["dims"]) == ("TYPE_UINT8", ["3", "-1", "-1"])
    kinds = {one["name"]: (one["data_type"], one["dims"]) for one in config["output"]}
    assert kinds["boxes"] == ("TYPE_FP32", ["-1", "-1"])
    assert kinds["labels"] == ("TYPE_INT64", ["-1"])
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == "2000"
    model = loaded(tmp_path / "street", config)
    pixels = [(image * 255).byte() for image in images(2)]
    names = ["boxes", "labels", "scores"]
    given = [Request(image.numpy()[None], names) for image in (*pixels, pixels[0])]
    given.insert(1, Request(np.zeros((2, 3, 8, 8), np.uint8), names))
    bad: Response
    first, bad, second, third = model.execute(given)
    for response, image in ((first, pixels[0]), (second, pixels[1]), (third, pixels[0])):
        found, (expected,) = answers(response), fast([image.float() / 255])
        assert list(found) == names
        assert found["labels"][0].tolist() == expected["labels"].tolist()
        assert np.allclose(found["boxes"][0], expected["boxes"], atol=1e-3)
    assert bad.error is not None
    assert "one image of shape [1, 3, height, width]" in bad.error
    (only,) = model.execute([Request(pixels[0].numpy()[None], ["scores"])])
    assert list(answers(only)) == ["scores"]
    model.finalize()


@pytest.mark.usefixtures("_backend")
def test_only_the_bad_image_of_a_batch_gets_an_error(tmp_path: Path) -> None:
    from fxtrt.serving.serve_options import ServeOptions
    from fxtrt.serving.triton_export import export_triton

    path = means_file(tmp_path / "means.fxtrt")
    options = ServeOptions(path=str(path), mean=(0.5, 0.5, 0.5), timeout=3.0, name="grey")
    home = export_triton(options, tmp_path / "repository")
    config = config_of(home)
    assert [(one["name"], one["dims"]) for one in config["output"]] == [
        ("mean", ["1"]),
        ("both", ["2"]),
    ]
    model = loaded(home, config)
    white = np.full((1, 3, 6, 8), 255, np.uint8)
    (found,) = model.execute([Request(white, ["mean", "both"])])
    assert answers(found)["mean"].tolist() == [[pytest.approx(0.5)]]
    assert answers(found)["both"].tolist() == [[pytest.approx(0.5), pytest.approx(-0.5)]]

    whole = model._served.model.model.forward
    model._served.model.model.forward = lambda batch: (
        whole(batch) if bool((batch > 0).all()) else 1 / 0
    )
    good, bad = model.execute([Request(white, ["mean"]), Request(0 * white, ["mean"])])
    assert answers(good)["mean"].tolist() == [[pytest.approx(0.5)]]
    assert bad.error == "ZeroDivisionError: division by zero"


def test_errors_are_one_line(
    detector: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, fast = detector
    fxtrt.save(fast, tmp_path / "no_weights.fxtrt")
    (tmp_path / "small").mkdir()
    for arguments, message in [
        ([str(path), str(tmp_path)], "is there already: remove it, or give another name"),
        ([str(path), str(tmp_path), "--name", "a b"], "'a b' is no name for a model in Triton"),
        ([str(tmp_path / "no_weights.fxtrt"), str(tmp_path)], "has no weights"),
    ]:
        assert run(monkeypatch, "export-triton", *arguments) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
