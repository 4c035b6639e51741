"""Types a weakly typed network (TensorRT 8.6) as a strongly typed one is typed by itself."""

from __future__ import annotations

from typing import Any

import torch

from .network import Network

__all__ = ["constrain_precision", "settle_types"]


def settle_types(network: Network, first: int) -> None:
    """Make the layers from number `first` on answer in float16 where they read float16.

    To a weakly typed network float32 and float16 are one type until it is built, and a layer's
    output reads as float32. What `tensor.dtype` says is only true once it is settled here.
    """
    trt, half = network.trt, network.features.to_trt(torch.float16)
    fixed = (trt.LayerType.CAST, trt.LayerType.CONSTANT)
    for index in range(first, network.definition.num_layers):
        layer = network.definition.get_layer(index)
        if layer.type not in fixed and _float_type(network, layer) == half:
            _constrain(network, layer, half)


def constrain_precision(network: Network, config: Any) -> None:
    """Let the builder choose no other precision than the graph's; after `settle_types`."""
    trt, features = network.trt, network.features
    half, single = features.to_trt(torch.float16), features.to_trt(torch.float32)
    layers = [network.definition.get_layer(i) for i in range(network.definition.num_layers)]
    if not any(half in _output_types(layer) for layer in layers):
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    fixed = (trt.LayerType.CAST, trt.LayerType.CONSTANT)
    for layer in layers:
        if layer.type not in fixed and _float_type(network, layer) == single:
            _constrain(network, layer, single)


def _float_type(network: Network, layer: Any) -> Any:
    """The type of the first float that the layer reads; None where it reads none."""
    floats = [network.features.to_trt(dtype) for dtype in (torch.float32, torch.float16)]
    inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
    types = [tensor.dtype for tensor in inputs if tensor is not None and tensor.dtype in floats]
    return types[0] if types else None


def _constrain(network: Network, layer: Any, dtype: Any) -> None:
    """Compute in `dtype`; the outputs that are floats (no indices, no masks) are of it too."""
    layer.precision = dtype
    floats = [network.features.to_trt(t) for t in (torch.float32, torch.float16)]
    for index, current in enumerate(_output_types(layer)):
        if current in floats:
            layer.set_output_type(index, dtype)


def _output_types(layer: Any) -> list[Any]:
    return [layer.get_output(i).dtype for i in range(layer.num_outputs)]
