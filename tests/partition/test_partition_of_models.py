"""On the graphs of real detectors the partitioner makes no more clusters than torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import quotient, rejects, their_partitions
from networkx import is_directed_acyclic_graph
from torch.fx import GraphModule

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models import detection

from fxtrt.capture.export import capture_module
from fxtrt.partition.partition import partition, repair
from fxtrt.pass_manager import run_passes
from fxtrt.settings import Settings

LEVELS = [torch.zeros(1, 256, size, size) for size in (32, 16, 8, 4, 2)]


def small(name: str) -> Any:
    return getattr(detection, name)(weights=None, weights_backbone=None).eval()


PARTS: dict[str, Callable[[], tuple[torch.nn.Module, tuple[Any, ...]]]] = {
    "backbone": lambda: (
        small("fasterrcnn_resnet50_fpn").backbone,
        (torch.zeros(1, 3, 128, 128),),
    ),
    "rpn.head": lambda: (small("fasterrcnn_resnet50_fpn").rpn.head, (LEVELS,)),
    "retinanet.head": lambda: (small("retinanet_resnet50_fpn").head, (LEVELS,)),
    "ssdlite": lambda: (
        small("ssdlite320_mobilenet_v3_large").backbone,
        (torch.zeros(1, 3, 320, 320),),
    ),
}


def captured(name: str) -> GraphModule:
    module, inputs = PARTS[name]()
    gm = capture_module(module, inputs)
    run_passes(gm)
    return gm


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_whatever_stays_out(name: str) -> None:
    """Each operator of the part in turn has no converter."""
    gm = captured(name)
    for target in {node.target for node in gm.graph.nodes if node.op == "call_function"}:
        support = rejects(target)
        theirs = their_partitions(gm, support)
        division = repair(gm, partition(gm, support, Settings(min_cluster_size=1)))
        assert len(division.clusters) <= len(theirs), target
        assert division.cuts <= division.cuts_before_repair
        assert is_directed_acyclic_graph(quotient(gm, division)), target
