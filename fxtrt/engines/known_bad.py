"""Lists the kernels of TensorRT that are known to give wrong numbers, so that nothing uses them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch.fx import Node

from ..errors import RegistrationError
from ..graph.patterns import Patterns
from ..registry import Rejection

__all__ = ["KNOWN_BAD", "KnownBad", "known_bad", "why_known_bad"]


@dataclass(frozen=True, slots=True)
class KnownBad:
    """A kernel that gives wrong numbers.

    layer:     the LayerType, for people.
    operators: patterns, as in `Settings.blacklist`, of the operators that make such layers.
    engine:    the name of the engine.
    since, before: the versions of TensorRT that have it, from the first to before the second, such
               as (10, 13) and (11, 2).
    reason:    what is wrong, and where it is reported.
    when:      takes a node and says whether it uses the kernel: its fake values and arguments.
    """

    layer: str
    operators: tuple[str, ...]
    engine: str
    since: tuple[int, ...]
    before: tuple[int, ...]
    reason: str
    when: Callable[[Node], bool] = lambda node: True

    def concerns(self, engine: str, version: str) -> bool:
        """Return whether an engine of this version has the kernel."""
        numbers = tuple(map(int, re.findall(r"\d+", version)))
        return engine == self.engine and self.since <= numbers < self.before


KNOWN_BAD: list[KnownBad] = [
    KnownBad(
        layer="GRID_SAMPLE",
        operators=("aten.grid_sampler", "aten.grid_sampler_2d", "torchvision.deform_conv2d"),
        engine="tensorrt",
        since=(10, 13),
        before=(11, 2),
        reason="GRID_SAMPLE gives wrong numbers: github.com/NVIDIA/TensorRT/issues/4813, "
        "github.com/pytorch/TensorRT/issues/4074",
    ),
]
"""The kernels that fxtrt knows, and those that `known_bad` added."""


def known_bad(
    layer: str,
    operators: Iterable[str],
    *,
    since: tuple[int, ...],
    before: tuple[int, ...],
    reason: str,
    engine: str = "tensorrt",
    when: Callable[[Node], bool] = lambda node: True,
) -> None:
    """Keep operators in PyTorch where a version of TensorRT has a kernel that answers wrongly.

    It holds for what is compiled from now on, in this process. `whitelist` overrules it.

    Args:
        layer: the TensorRT layer, for the report.
        operators: patterns, as in `Settings.blacklist`, such as "aten.grid_sampler".
        since, before: the versions, from the first to before the second, such as (10, 13), (11, 2).
        reason: what is wrong, for the report; the address of an issue, say.
        engine: "tensorrt" or "tensorrt_rtx".
        when: takes a node and says whether it uses the kernel. `node.meta["val"]` has its dtype and
            shape, `node.args` its arguments.

    Raises:
        RegistrationError: no version is in the range, or `operators` is empty or a string.
    """
    if isinstance(operators, str) or not (named := tuple(operators)):
        raise RegistrationError(f"known_bad takes a list of operators, not {operators!r}")
    if not tuple(since) < tuple(before):
        raise RegistrationError(f"known_bad: no version is from {since} to before {before}")
    KNOWN_BAD.append(KnownBad(layer, named, engine, tuple(since), tuple(before), reason, when))


def why_known_bad(node: Node, engine: str, version: str) -> Rejection | None:
    """Return why an engine would compute a call wrongly, as far as is known, or None.

    Args:
        engine: the name of the engine.
        version: the version of its TensorRT module.
    """
    for one in KNOWN_BAD:
        if one.concerns(engine, version) and Patterns(one.operators).match(node) and one.when(node):
            detail = f"{node.target}: in TensorRT {version} {one.reason}"
            return Rejection("known_bad", detail)
    return None
