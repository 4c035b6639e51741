"""Give the tensors of a weakly typed network (TensorRT 8.6) the types of a strongly typed one."""

from __future__ import annotations

from typing import Any

import torch

from .network import Network

__all__ = ["constrain_precision", "settle_types", "type_of"]


def type_of(network: Network, tensor: Any) -> Any:
    """Return the `trt.DataType` of a tensor.

    In a weakly typed network every float tensor reads as float32 until the builder chooses types,
    also the results of casts and constants in float16. There it is the type that `settle_types`
    recorded.
    """
    return network.types.get(tensor, tensor.dtype)


def settle_types(network: Network, first: int) -> None:
    """Record the types that layers from number `first` on return, and tell TensorRT about float16.

    A layer that reads float16 returns it. A cast and a constant return the type that they were made
    with. TensorRT runs a layer between a DEQUANTIZE and a QUANTIZE in int8 only if the layer has no
    precision of its own, so these get none.
    """
    trt, half = network.trt, network.features.to_trt(torch.float16)
    for index in range(first, network.definition.num_layers):
        layer = network.definition.get_layer(index)
        if layer.type == trt.LayerType.CAST:
            layer.__class__ = trt.ICastLayer
            network.types[layer.get_output(0)] = layer.to_type
        elif layer.type == trt.LayerType.CONSTANT:
            layer.__class__ = trt.IConstantLayer
            network.types[layer.get_output(0)] = _weights_type(network, layer)
        elif layer.type == trt.LayerType.QUANTIZE:
            continue
        elif layer.type == trt.LayerType.DEQUANTIZE:
            network.free[layer.get_output(0)] = True
        elif _is_free(network, layer):
            _leave_free(network, layer)
        elif _float_type(network, layer) == half:
            _constrain(network, layer, half)


def constrain_precision(network: Network, config: Any) -> None:
    """Make the builder obey the precisions of the graph; call it after `settle_types`."""
    trt, features = network.trt, network.features
    half, single = features.to_trt(torch.float16), features.to_trt(torch.float32)
    layers = [network.definition.get_layer(i) for i in range(network.definition.num_layers)]
    quantizers = (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
    if any(layer.type in quantizers for layer in layers):
        config.set_flag(trt.BuilderFlag.INT8)
    if not any(half in _types(network, layer) for layer in layers):
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    fixed = (trt.LayerType.CAST, trt.LayerType.CONSTANT, *quantizers)
    for layer in layers:
        if (
            layer.type not in fixed
            and not _is_free(network, layer)
            and _float_type(network, layer) == single
        ):
            _constrain(network, layer, single)


def _is_free(network: Network, layer: Any) -> bool:
    """Return whether TensorRT may fuse the layer into one that computes in int8.

    That is a layer that reads what is dequantized, and what is fused behind it: the bias, the sum
    with a residual, and the activation.
    """
    types = network.trt.LayerType
    fused = layer.type in (types.ELEMENTWISE, types.ACTIVATION)
    inputs = _inputs(layer)
    return any(
        network.free.get(tensor, False) or (fused and tensor in network.free) for tensor in inputs
    )


def _leave_free(network: Network, layer: Any) -> None:
    """Record the types of a free layer's outputs, without telling them to TensorRT."""
    dtype = _float_type(network, layer)
    for index in range(layer.num_outputs):
        output = layer.get_output(index)
        network.free[output] = False
        if output.dtype in _floats(network):
            network.types[output] = dtype


def _weights_type(network: Network, layer: Any) -> Any:
    """Return the type of a constant, whose output reads as float32 for float16 too."""
    weights = layer.weights
    is_half = getattr(weights, "dtype", None) == "float16"
    return network.features.to_trt(torch.float16) if is_half else layer.get_output(0).dtype


def _float_type(network: Network, layer: Any) -> Any:
    """Return the type of the first float that the layer reads, or None if it reads none."""
    floats = _floats(network)
    types = [type_of(network, tensor) for tensor in _inputs(layer)]
    return next((dtype for dtype in types if dtype in floats), None)


def _constrain(network: Network, layer: Any, dtype: Any) -> None:
    """Make the layer compute in `dtype` and return it in each output that is a float."""
    layer.precision = dtype
    floats = _floats(network)
    for index in range(layer.num_outputs):
        output = layer.get_output(index)
        if output.dtype in floats:
            layer.set_output_type(index, dtype)
            network.types[output] = dtype


def _types(network: Network, layer: Any) -> list[Any]:
    """Return the types of all tensors that the layer reads and returns."""
    outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
    return [type_of(network, tensor) for tensor in [*_inputs(layer), *outputs]]


def _inputs(layer: Any) -> list[Any]:
    tensors = [layer.get_input(i) for i in range(layer.num_inputs)]
    return [tensor for tensor in tensors if tensor is not None]


def _floats(network: Network) -> list[Any]:
    return [network.features.to_trt(dtype) for dtype in (torch.float32, torch.float16)]
