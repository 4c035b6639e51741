"""Read the layers of an INetworkDefinition into a `Program`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch

from ...errors import EngineError
from ..network import Network
from .layers import HANDLERS, Layer
from .program import (
    Program,
    Result,
    Step,
)

__all__ = ["read_program"]


def read_program(network: Network, outputs: Sequence[str]) -> Program:
    """Return the program that computes `outputs`; it holds no reference to the network.

    Raises:
        EngineError: a layer has no PyTorch equivalent here, or the network has a cycle.
    """
    _load_handlers()
    steps: list[Step] = []
    weights: dict[str, torch.Tensor] = {}
    for index in range(network.definition.num_layers):
        layer = _downcast(network, network.definition.get_layer(index))
        steps.append(_read_step(layer))
        weights |= layer.weights
    return Program(_with_deaths(_sorted(steps), set(outputs)), weights)


@cache
def _load_handlers() -> None:
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")


def _downcast(network: Network, raw: Any) -> Layer:
    """Return `raw` as an object of its own class; `get_layer` returns one of the base class."""
    # The kind is read first, because IActivationLayer.type and IPoolingLayer.type hide it.
    kind = raw.type.name
    if kind not in HANDLERS:
        raise EngineError(
            f"layer {raw.name!r} is a {kind} layer, which the reference engine cannot execute: "
            f"use another engine, or put its node in `blacklist`"
        )
    # With any other class than the layer's own, reading an attribute crashes the process.
    raw.__class__ = getattr(network.trt, HANDLERS[kind][0])
    tensors = [raw.get_input(i) for i in range(raw.num_inputs)]
    return Layer(raw, kind, network, [None if t is None else str(t.name) for t in tensors])


def _read_step(layer: Layer) -> Step:
    handler = HANDLERS[layer.kind][1]
    try:
        compute = handler(layer)
        results = tuple(
            _result(layer.network, layer.raw.get_output(i)) for i in range(layer.raw.num_outputs)
        )
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"layer {layer.name!r} ({layer.kind}) cannot be read: {error}") from error
    return Step(layer.name, layer.kind, compute, tuple(layer.operands), results)


def _result(network: Network, tensor: Any) -> Result:
    features = network.features
    return Result(
        str(tensor.name),
        tuple(tensor.shape),
        features.to_torch(tensor.dtype),
        loose=features.weakly_typed,
    )


def _sorted(steps: Sequence[Step]) -> list[Step]:
    """Sort `steps` so that producers come before users; a network has the order of insertion."""
    producers = {result.name: i for i, step in enumerate(steps) for result in step.results}
    needs = {
        i: [producers[name] for name in step.operands if name in producers]
        for i, step in enumerate(steps)
    }
    try:
        return [steps[i] for i in TopologicalSorter(needs).static_order()]
    except CycleError as error:
        names = ", ".join(repr(steps[i].layer) for i in error.args[1])
        raise EngineError(f"the layers {names} form a cycle") from error


def _with_deaths(steps: Sequence[Step], alive: set[str]) -> list[Step]:
    """Let each step free the values that no later step reads, except those in `alive`."""
    alive = set(alive)
    result: list[Step] = []
    for step in reversed(steps):
        touched = {name for name in step.operands if name} | {r.name for r in step.results}
        result.append(replace(step, dead=tuple(sorted(touched - alive))))
        alive |= touched
    return result[::-1]
