"""Small graphs and modules that several tests build on."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch.fx import GraphModule, Node

from fxtrt.capture import trace
from fxtrt.registry import Rejection

aten = torch.ops.aten


def random_dag(seed: int, size: int, *, shuffled: bool = False) -> GraphModule:
    """A random graph of relu and add, some of which `rejects_add` keeps out of engines.

    shuffled: the same graph with its nodes in another valid order.
    """
    rng = random.Random(seed)
    inputs = [[rng.randrange(i + 1) for _ in range(rng.choice((1, 1, 2)))] for i in range(size)]
    kinds = [rng.random() < 0.35 for _ in range(size)]

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values: dict[int, torch.Tensor] = {0: x}
        order = _shuffled_order(inputs, seed) if shuffled else list(range(size))
        for i in order:
            operands = [values[j] for j in inputs[i]]
            if len(operands) == 2:
                values[i + 1] = operands[0] + operands[1]
            else:
                values[i + 1] = torch.sigmoid(operands[0]) if kinds[i] else torch.relu(operands[0])
        return tuple(values[i + 1] for i in range(size - min(3, size), size))

    return trace(function, (torch.randn(2, 3),))


def _shuffled_order(inputs: list[list[int]], seed: int) -> list[int]:
    rng = random.Random(seed + 1)
    done, order = {0}, []
    pending = set(range(len(inputs)))
    while pending:
        ready = sorted(i for i in pending if all(j in done for j in inputs[i]))
        chosen = rng.choice(ready)
        pending.remove(chosen)
        done.add(chosen + 1)
        order.append(chosen)
    return order


def rejects(*targets: object) -> Callable[[Node, bool], Rejection | None]:
    """A support test that keeps these targets out of engines and takes the rest."""

    def support(node: Node, whitelisted: bool) -> Rejection | None:
        return Rejection("test", str(node.target)) if node.target in targets else None

    return support
