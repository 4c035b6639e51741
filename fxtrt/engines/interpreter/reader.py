"""Reads the layers of an INetworkDefinition into a `Program`."""

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
    """The program that computes `outputs`; it does not refer to the network any more.

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
    """`raw` as an object of its own class, which `get_layer` does not give."""
    # Must be read first: IActivationLayer.type and IPoolingLayer.type hide it.
    kind = raw.type.name
    if kind not in HANDLERS:
        raise EngineError(
            f"layer {raw.name!r} is a {kind} layer, which the reference engine cannot execute: "
            f"use another engine, or put its node in `blacklist`"
        )
    # A class that is not the layer's own crashes the process on the first attribute.
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
    """`steps` with every producer before its users; networks keep the order of insertion."""
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
    """`steps` with each value freed after its last use; `alive` ones never are."""
    alive = set(alive)
    result: list[Step] = []
    for step in reversed(steps):
        touched = {name for name in step.operands if name} | {r.name for r in step.results}
        result.append(replace(step, dead=tuple(sorted(touched - alive))))
        alive |= touched
    return result[::-1]
