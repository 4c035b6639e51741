"""Turns a family of Detectron2 into its coverage and its differences from eager."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from detector_agreement import count_segments, differences
from detector_families import Family
from detectron2_package import require_detectron2
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import fxtrt
from fxtrt.engines.select import select
from fxtrt.errors import CaptureError, FxtrtError
from fxtrt.reporting import Coverage
from fxtrt.runtime.guarded_forward import GuardedForward

__all__ = ["Measurement", "Setup", "measure"]

_PACKAGES = ("torch", "torchvision")


@dataclass(frozen=True, slots=True)
class Setup:
    """The engine, the device and the options of a measurement.

    device:  torch's name of the device of model and images.
    options: the options of `fxtrt.compile` besides the engine.
    """

    engine: str = "reference"
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        device = torch.device(self.device)
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        with_engine = f"`{self.engine}` ({select(self.engine).features.version}) on {where}"
        packages = [f"{name} {version(name)}" for name in _PACKAGES]
        given = [f"{name} {_words(value)}" for name, value in self.options.items()]
        return ", ".join([with_engine, *packages, *given])


def _words(value: Any) -> str:
    return " and ".join(value) if isinstance(value, (list, tuple)) else str(value)


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result for one compiled family.

    found:       what eager finds, as "100 instances".
    nodes:       the number of compute nodes.
    converted:   the number of those in engines.
    engines:     the number of engines with FLOPs.
    differences: the differences from eager in float32 on the same device, over the example and its
                 mirror image.
    capture:     lines on how the graphs were captured.
    problem:     what was not built, and what ran in PyTorch; or why there is no result, if all
                 other fields are empty.
    """

    detectron2: str = ""
    found: str = ""
    nodes: int = 0
    converted: int = 0
    engines: int = 0
    flops_share: float = 0.0
    cuts: int = 0
    differences: Mapping[str, float] = field(default_factory=dict)
    capture: tuple[str, ...] = ()
    problem: str = ""


def measure(family: Family, setup: Setup) -> Measurement:
    """Compile the family's model and compare it with eager."""
    require_detectron2()
    import detectron2

    model, example = family.build()
    model = model.to(setup.device)
    example = tree_map_only(Tensor, lambda tensor: tensor.to(setup.device), example)
    mirrored = [one | {"image": one["image"].flip(2)} for one in example]
    with torch.no_grad(), _without_tf32():
        expected = [model(example), model(mirrored)]
    try:
        compiled = _compiled(model, example, setup)
    except FxtrtError as error:
        return Measurement(detectron2.__version__, problem=" ".join(str(error).split()))
    with torch.no_grad(), _without_tf32():
        actual = [compiled(example), compiled(mirrored)]
    coverage = fxtrt.report(compiled)
    return Measurement(
        detectron2=detectron2.__version__,
        found=_found(expected[0][0]),
        nodes=coverage.nodes,
        converted=coverage.converted,
        engines=sum(row.flops > 0 for row in coverage.clusters),
        flops_share=coverage.flops_share,
        cuts=coverage.cuts,
        differences=differences(
            [one for answer in actual for one in answer],
            [one for answer in expected for one in answer],
        ),
        capture=coverage.capture,
        problem="; ".join(_problems(compiled, coverage)),
    )


def _compiled(model: nn.Module, example: Any, setup: Setup) -> nn.Module:
    """Compile the whole model with fixed sizes, or its parts if that fails."""
    options = {**setup.options, "engine": setup.engine}
    try:
        return fxtrt.compile(model, (example,), dynamic_shapes={}, **options)
    except CaptureError:
        return fxtrt.compile(model, (example,), **options)


def _problems(compiled: nn.Module, coverage: Coverage) -> list[str]:
    failed = [row.detail for row in coverage.rejections if row.code == "build_failed"]
    guards = [m.forward for m in compiled.modules() if isinstance(m.forward, GuardedForward)]
    calls = [reason for guard in guards for reason in guard.fallbacks]
    inside = [row.reason for one in coverage.runtime for row in one.fallbacks]
    # A feature level without candidates has nothing to compute.
    inside = [reason for reason in inside if not reason.endswith("is empty")]
    return list(dict.fromkeys(" ".join(one.split()) for one in [*failed, *calls, *inside]))


@contextmanager
def _without_tf32() -> Iterator[None]:
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def _found(answer: Mapping[str, Any]) -> str:
    counted = [f"{len(answer[key])} {key}" for key in ("instances", "proposals") if key in answer]
    if "panoptic_seg" in answer:
        counted.append(f"{count_segments(*answer['panoptic_seg'])} segments")
    return ", ".join(counted)
