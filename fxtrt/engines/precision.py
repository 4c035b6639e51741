"""Types a weakly typed network (TensorRT 8.6) the way a strongly typed one is typed by itself."""

from __future__ import annotations

from typing import Any

import torch

from .network import Network

__all__ = ["set_layer_precisions"]

_FLOATS = (torch.float32, torch.float16)


def set_layer_precisions(network: Network, config: Any) -> None:
    """Let every layer compute and answer in the types that the graph gives its tensors.

    A weakly typed builder may otherwise choose float32 or float16 for each layer as it likes.
    """
    trt, features = network.trt, network.features
    half = features.to_trt(torch.float16)
    floats = [features.to_trt(dtype) for dtype in _FLOATS]
    layers = [network.definition.get_layer(i) for i in range(network.definition.num_layers)]
    if not any(layer.get_output(i).dtype == half for layer in layers for i in range(layer.num_outputs)):
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    fixed = (trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.CAST)
    for layer in layers:
        if layer.type in fixed:
            continue
        sources = [layer.get_input(i) for i in range(layer.num_inputs)]
        dtypes = [source.dtype for source in sources if source is not None]
        if dtypes and dtypes[0] in floats:
            layer.precision = dtypes[0]
            for i in range(layer.num_outputs):
                if layer.get_output(i).dtype in floats:
                    layer.set_output_type(i, layer.get_output(i).dtype)
