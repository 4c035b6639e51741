"""Reads requests of the Open Inference Protocol v2, and writes its replies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ProtocolError

__all__ = ["InferRequest", "read_request", "write_reply"]

_DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}
DATATYPES = {dtype: name for name, dtype in _DTYPES.items()}
_PIXELS = {"UINT8", "FP16", "FP32"}
_UNKNOWN_PARAMETERS = ("sequence_id", "shared_memory_region")


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request for one image, as a tensor (3, H, W) or as the bytes of a file.

    image:   a tensor, or bytes.
    outputs: the names of the outputs to reply with, and whether each is binary; None takes all.
    binary:  whether outputs are binary if nothing else is said.
    timeout: the seconds that the client waits; None if it does not say.
    """

    id: str | None
    image: Tensor | bytes
    outputs: Mapping[str, bool] | None
    binary: bool
    timeout: float | None


def read_request(body: bytes, header_length: int | None, most_pixels: int) -> InferRequest:
    """Read the body of `POST /v2/models/NAME/infer`.

    Args:
        header_length: the bytes of JSON at the beginning; None if there is nothing else.

    Raises:
        ProtocolError: with what is wrong, and the HTTP status to answer with.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise ProtocolError(f"the JSON is said to have {header_length} of {len(body)} bytes")
    header = _json(body if header_length is None else body[:header_length])
    rest = b"" if header_length is None else body[header_length:]
    inputs = header.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ProtocolError("a request has one input: an image, or the bytes of its file")
    parameters = _parameters(header)
    binary = parameters.get("binary_data_output") is True
    return InferRequest(
        id=header["id"] if isinstance(header.get("id"), str) else None,
        image=_image(inputs[0], rest, most_pixels),
        outputs=_outputs(header.get("outputs"), binary),
        binary=binary,
        timeout=_timeout(parameters.get("timeout")),
    )


def write_reply(
    request: InferRequest, model: str, outputs: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """Return the body of a reply, and the bytes of its JSON if binary data follows.

    Args:
        outputs: tensors by name; other values become JSON in an output of type BYTES.

    Raises:
        ProtocolError: the request names an output that the model does not have.
    """
    wanted = request.outputs or dict.fromkeys(outputs, request.binary)
    if missing := sorted(wanted.keys() - outputs.keys()):
        raise ProtocolError(f"the model has no output {missing[0]}: it has {', '.join(outputs)}")
    described, raw = [], []
    for name, is_binary in wanted.items():
        entry, data = _output(name, outputs[name], is_binary)
        described.append(entry)
        raw.append(data)
    header: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": described}
    if request.id is not None:
        header["id"] = request.id
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    has_binary = any("parameters" in entry for entry in described)
    return b"".join([text, *raw]), len(text) if has_binary else None


def _json(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the request is not JSON: {type(error).__name__}: {error}") from error
    if not isinstance(header, dict):
        raise ProtocolError("the request is not a JSON object")
    return header


def _parameters(owner: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = owner.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ProtocolError("`parameters` is not a JSON object")
    for name in _UNKNOWN_PARAMETERS:
        if name in parameters:
            raise ProtocolError(f"the parameter {name} is not supported")
    return parameters


def _timeout(microseconds: Any) -> float | None:
    if microseconds is None:
        return None
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or microseconds <= 0:
        raise ProtocolError(f"`timeout` must be microseconds above 0, not {microseconds!r}")
    return microseconds / 1e6


def _outputs(named: Any, binary: bool) -> dict[str, bool] | None:
    if not named:
        return None
    if not isinstance(named, list) or not all(isinstance(one, dict) for one in named):
        raise ProtocolError("`outputs` is not a list of JSON objects")
    found = {}
    for one in named:
        parameters = _parameters(one)
        if not isinstance(one.get("name"), str) or "classification" in parameters:
            raise ProtocolError("an output has a `name`, and is no classification")
        found[one["name"]] = bool(parameters.get("binary_data", binary))
    return found


def _image(entry: Mapping[str, Any], rest: bytes, most_pixels: int) -> Tensor | bytes:
    datatype, shape = entry.get("datatype"), entry.get("shape")
    size = _parameters(entry).get("binary_data_size")
    if size is not None and size != len(rest):
        raise ProtocolError(f"{len(rest)} bytes follow the JSON, and binary_data_size is {size}")
    if size is None and rest:
        raise ProtocolError(f"{len(rest)} bytes follow the JSON, and no binary_data_size is given")
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise ProtocolError(f"`shape` must be a list of whole numbers above 0, not {shape!r}")
    if datatype == "BYTES":
        return _file(entry, shape, rest if size is not None else None)
    if datatype not in _PIXELS:
        raise ProtocolError(f"an image is {', '.join(sorted(_PIXELS))} or BYTES, not {datatype!r}")
    if len(shape) != 3 or shape[0] != 3:
        raise ProtocolError(f"an image has the shape [3, height, width], not {shape}")
    if shape[1] * shape[2] > most_pixels:
        raise ProtocolError(f"the image has more than {most_pixels} pixels: {shape}", 413)
    dtype = _DTYPES[datatype]
    image = _from_json(entry.get("data"), shape, dtype) if size is None else None
    return _finite(_from_bytes(rest, shape, dtype) if image is None else image)


def _file(entry: Mapping[str, Any], shape: Sequence[int], rest: bytes | None) -> bytes:
    """Return the bytes of a file. In binary data, its length stands before it in four bytes."""
    if math.prod(shape) != 1:
        raise ProtocolError(f"a request has one image, and the shape of BYTES is {shape}")
    if rest is None:
        raise ProtocolError("the bytes of a file must be sent as binary data, not as JSON")
    if len(rest) < 4 or int.from_bytes(rest[:4], "little") != len(rest) - 4:
        raise ProtocolError("BYTES begin with their length in four bytes, and it is another one")
    return rest[4:]


def _from_bytes(raw: bytes, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ProtocolError(f"the shape {list(shape)} needs {expected} bytes, not {len(raw)}")
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(tuple(shape))


def _from_json(data: Any, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    try:
        values = torch.tensor(data, dtype=torch.float64)
        image = values.to(dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ProtocolError(f"`data` holds no numbers: {error}") from error
    if values.numel() != math.prod(shape):
        raise ProtocolError(f"`data` has {values.numel()} numbers, and the shape is {list(shape)}")
    if not dtype.is_floating_point and not torch.equal(image.double(), values):
        raise ProtocolError("`data` has numbers that are not whole, or not from 0 to 255")
    return image.reshape(tuple(shape))


def _finite(image: Tensor) -> Tensor:
    if image.is_floating_point() and not bool(image.isfinite().all()):
        raise ProtocolError("the image has values that are not finite")
    return image


def _output(name: str, value: Any, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    entry: dict[str, Any] = {"name": name}
    if not isinstance(value, Tensor):
        text = json.dumps(value, allow_nan=False)
        entry |= {"datatype": "BYTES", "shape": [1]}
        raw = text.encode()
        data: Any = [text]
        raw = len(raw).to_bytes(4, "little") + raw
    else:
        value = value.detach().cpu().contiguous()
        entry |= {"datatype": DATATYPES[value.dtype], "shape": list(value.shape)}
        raw = value.flatten().view(torch.uint8).numpy().tobytes() if is_binary else b""
        data = None if is_binary else value.flatten().tolist()
    if is_binary:
        return entry | {"parameters": {"binary_data_size": len(raw)}}, raw
    return entry | {"data": data}, b""
