"""Serves a file in Triton's Python backend; the model.py of an exported repository imports it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProtocolError
from .batching import key_of
from .detections import outputs_of
from .serve_options import ServeOptions

__all__ = ["FILE", "IMAGE", "PARAMETER", "TritonPythonModel", "as_array"]

FILE = "model.fxtrt"
"""The name of the file in the folder of a version."""
IMAGE, PARAMETER = "image", "fxtrt"
"""The name of the input, and of the parameter that holds `ServeOptions` as JSON."""


class TritonPythonModel:
    """What Triton calls: once `initialize`, then `execute` with the requests of a batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file beside model.py, answer its example, and warm it up."""
        if args["model_instance_kind"] == "GPU":
            # An instance is a process of its own, and the file's engines run on the first GPU.
            os.environ["CUDA_VISIBLE_DEVICES"] = args["model_instance_device_id"]
        config = json.loads(args["model_config"])
        options = json.loads(config["parameters"][PARAMETER]["string_value"])
        path = Path(args["model_repository"]) / args["model_version"] / FILE
        self._served = ServeOptions(**options, path=str(path)).open()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response for each request, which has one image (1, 3, H, W), uint8.

        A batch that fails runs again image by image, so that only bad images get errors.
        """
        answers = [_attempt(self._image, request) for request in requests]
        # A detector pads images of different sizes, which changes its numbers a little.
        places: dict[Any, list[int]] = {}
        for place, image in enumerate(answers):
            if not isinstance(image, Exception):
                places.setdefault(key_of(image, "shape"), []).append(place)
        most = self._served.max_batch
        for alike in places.values():
            for batch in (alike[i : i + most] for i in range(0, len(alike), most)):
                found = self._answers([answers[place] for place in batch])
                for place, answer in zip(batch, found, strict=True):
                    answers[place] = answer
        pairs = zip(requests, answers, strict=True)
        return [_response(request, answer) for request, answer in pairs]

    def finalize(self) -> None:
        """Let go of the model."""
        del self._served

    def _image(self, request: Any) -> Any:
        import triton_python_backend_utils as backend

        array = backend.get_input_tensor_by_name(request, IMAGE).as_numpy()
        if array.ndim != 4 or array.shape[:2] != (1, 3) or array.dtype != np.uint8:
            raise ProtocolError(
                f"a request has one image of shape [1, 3, height, width] in UINT8, not "
                f"{list(array.shape)} in {array.dtype}"
            )
        return self._served.pictures(torch.from_numpy(array[0].copy()))

    def _answers(self, images: list[Any]) -> list[Any]:
        found = _attempt(self._run, images)
        if not isinstance(found, Exception):
            return list(found)
        if len(images) == 1:
            return [found]
        return [answer for image in images for answer in self._answers([image])]

    def _run(self, images: list[Any]) -> Any:
        with torch.no_grad():
            return self._served.model(images)


def _attempt(call: Any, value: Any) -> Any:
    """Return the result of a call, or its error: other requests are not to fail with this one."""
    try:
        return call(value)
    except Exception as error:
        return error


def _response(request: Any, answer: Any) -> Any:
    import triton_python_backend_utils as backend

    if isinstance(answer, Exception):
        error = backend.TritonError(f"{type(answer).__name__}: {answer}")
        return backend.InferenceResponse(output_tensors=[], error=error)
    wanted = request.requested_output_names()
    outputs = outputs_of(answer)
    tensors = [backend.Tensor(name, as_array(outputs[name])) for name in outputs if name in wanted]
    return backend.InferenceResponse(output_tensors=tensors)


def as_array(value: Any) -> Any:
    """Return an output of one image with Triton's batch dimension; what is no tensor as JSON."""
    if not isinstance(value, Tensor):
        return np.array([[json.dumps(value, allow_nan=False).encode()]], dtype=np.object_)
    tensor = value.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.reshape(1, *(tensor.shape or (1,))).contiguous().numpy()
