"""Builds a small network directly with TensorRT's API, and runs it on an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fxtrt.engines.base import Engine, EngineBackend
from fxtrt.engines.network import Network, create_network
from fxtrt.graph.specs import TensorSpec

Build = Callable[..., Any]
"""Takes the network and an ITensor for each input; gives one ITensor or a tuple of them."""


def load(backend: EngineBackend, build: Build, *inputs: Tensor, dynamic: bool = False) -> Engine:
    """The engine of the network that `build` makes; `dynamic` gives every input symbolic sizes."""
    network = create_network(backend.features)
    network.inputs = [_spec(f"x{i}", x, dynamic) for i, x in enumerate(inputs)]
    net = network.definition
    tensors = [
        net.add_input(spec.name, backend.features.to_trt(spec.dtype), spec.shape)
        for spec in network.inputs
    ]
    built = build(net, *tensors)
    outputs = built if isinstance(built, tuple) else (built,)
    for index, tensor in enumerate(outputs):
        tensor.name = f"y{index}"
        net.mark_output(tensor)
        network.outputs.append(_spec_of(network, tensor))
    return backend.load(network, network.inputs, network.outputs)


def run(backend: EngineBackend, build: Build, *inputs: Tensor, dynamic: bool = False) -> Any:
    """The output of that network (a tuple where there are several)."""
    results = load(backend, build, *inputs, dynamic=dynamic).run(inputs)
    return results[0] if len(results) == 1 else results


def constant(net: Any, values: Any, dtype: torch.dtype = torch.int64) -> Any:
    """A CONSTANT layer's output."""
    array = torch.as_tensor(values, dtype=dtype).numpy()
    return net.add_constant(array.shape, array).get_output(0)


def floats(*values: Any) -> Tensor:
    """A float32 tensor."""
    return torch.tensor(values if len(values) != 1 else values[0], dtype=torch.float32)


def _spec(name: str, x: Tensor, dynamic: bool) -> TensorSpec:
    shape = tuple(x.shape)
    low: Sequence[int] = [0] * x.dim() if dynamic else shape
    high: Sequence[int | None] = [None] * x.dim() if dynamic else shape
    return TensorSpec(name, x.dtype, tuple(low), shape, tuple(high))


def _spec_of(network: Network, tensor: Any) -> TensorSpec:
    shape = tuple(max(0, size) for size in tensor.shape)
    high = tuple(None if size < 0 else size for size in tensor.shape)
    return TensorSpec(tensor.name, network.features.to_torch(tensor.dtype), shape, shape, high)
