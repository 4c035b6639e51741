"""Rows of a report, and a small model of which one operator is not converted."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fxtrt.builder.build import BuildInfo
from fxtrt.reporting import ClusterRow, GraphBreak, RejectionRow

__all__ = ["BREAK", "BUILT", "CLUSTER", "REJECTED", "Model", "X"]

BUILT = BuildInfo(seconds=1.5, layers=12, plan_bytes=3 << 20, cached=False)
CLUSTER = ClusterRow(
    name="cluster_0",
    module_paths=("backbone.body.conv1", "backbone.fpn"),
    nodes=9,
    flops=3_000_000_000,
    ops=(("aten.convolution.default", 5), ("aten.relu.default", 4)),
    dtypes=("float32",),
    bytes_in=12 << 20,
    bytes_out=5 << 10,
    engine="tensorrt",
    runs_on="TensorRT 10",
    build=BUILT,
)
REJECTED = RejectionRow(
    node="nms",
    target="torchvision.nms.default",
    code="no_converter",
    detail="torchvision.nms.default has no converter",
    module="roi_heads",
    source="boxes.py:41 in nms",
    flops=1_000_000_000,
    computes=True,
)
BREAK = GraphBreak("a break", "model.py:3 in forward")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sigmoid())
        self.rest = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> Any:
        return self.rest(torch.erfinv(self.part(x) * 0.5))


X = torch.rand(2, 4)
