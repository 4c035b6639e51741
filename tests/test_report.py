"""The report says what runs where, why, and what it costs, in plain text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import fxtrt
from fxtrt.build import BuildInfo
from fxtrt.capture import trace
from fxtrt.flops import flops
from fxtrt.report import ClusterRow, Coverage, RejectionRow

BUILT = BuildInfo(seconds=1.5, layers=12, plan_bytes=3 << 20, cached=False)
CLUSTER = ClusterRow("cluster_0", "backbone", 9, 3_000_000_000, "tensorrt", "TensorRT 10", BUILT)
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


def test_totals_and_shares() -> None:
    part = Coverage((CLUSTER,), (REJECTED,), ("a break",))
    total = Coverage.total([part, part])
    assert (total.nodes, total.converted) == (20, 18)
    assert total.flops_share == 0.75
    assert [row.name for row in total.clusters] == ["cluster_0", "cluster_1"]
    assert Coverage().flops_share == 0.0


def test_the_text() -> None:
    text = str(Coverage((CLUSTER,), (REJECTED, REJECTED), ("a break (model.py:3)",)))
    assert "1 engine: 60.0% of the FLOPs, 9 of 11 compute nodes" in text
    for part in ("backbone", "3.00", "3.0 MiB", "1.50 s", "tensorrt: TensorRT 10"):
        assert part in text
    assert "2        no_converter  torchvision.nms.default has no converter" in text
    assert "a break (model.py:3)" in text
    assert max(map(len, text.splitlines())) <= 110


def test_what_comes_from_the_cache_says_so() -> None:
    cached = BuildInfo(seconds=0.1, layers=None, plan_bytes=1 << 20, cached=True)
    row = ClusterRow("cluster_0", "", 3, 0, "tensorrt", "TensorRT 10", cached)
    assert "from cache" in str(Coverage((row,)))


def test_many_reasons_are_cut_short() -> None:
    rows = tuple(
        RejectionRow(f"n{i}", "t", "check", f"reason {i}", "", "", 0, True) for i in range(30)
    )
    assert "... and 10 nodes for other reasons" in str(Coverage((), rows))


def test_rows_name_the_module_and_the_line() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erfinv(self.part(x).clamp(0, 0.5))

    coverage = fxtrt.report(Model().eval(), (torch.rand(3),), engine="reference")
    (row,) = coverage.rejections
    assert row.target == "aten.erfinv.default"
    assert row.source.startswith("test_report.py:")
    assert "part" in coverage.clusters[0].modules


def test_flops_are_torchs() -> None:
    weight = torch.randn(8, 4, 3, 3)
    gm = trace(
        lambda x: F.conv2d(x, weight).relu().flatten(1) @ torch.ones(288, 2),
        (torch.randn(2, 4, 8, 8),),
    )
    counted = {node.name: flops(node) for node in gm.graph.nodes if node.op == "call_function"}
    assert counted["convolution"] == 2 * 2 * 8 * 4 * 9 * 36
    assert counted["relu"] == 0
    assert sum(counted.values()) - counted["convolution"] == 2 * 2 * 288 * 2
