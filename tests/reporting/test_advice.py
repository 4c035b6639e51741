"""Advice says what a user can do, and only what would pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from report_rows import CLUSTER, REJECTED, Model, X
from torch import nn

import fxtrt
from fxtrt.reporting import Coverage, RejectionRow
from fxtrt.reporting.advice import _STEPS, advise
from fxtrt.reporting.picture import Picture, PictureNode


def test_advice_says_what_a_converter_would_join() -> None:
    coverage = fxtrt.report(Model().eval(), (X,), engine="reference")
    (advice,) = advise(coverage)
    assert advice.joins == (("cluster_0", "cluster_1"),)
    assert str(advice).startswith("aten.erfinv.default needs a converter (@fxtrt.converts")
    assert "joins cluster_0 and cluster_1" in coverage.to_markdown()


def test_advice_joins_nothing_that_another_node_keeps_apart() -> None:
    class Fork(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.relu().sigmoid().relu() * 0.5
            x = torch.erfinv(x) + torch.special.ndtri(x)
            return x.relu().sigmoid()

    report = fxtrt.report(Fork().eval(), (X,), engine="reference")
    assert len(report.clusters) == 2
    assert advise(report) == []


def row(code: str, detail: str, **values: Any) -> RejectionRow:
    values = {"target": "aten.cat.default", "flops": 0, **values}
    return replace(REJECTED, code=code, detail=detail, **values)


@pytest.mark.parametrize(
    "code",
    [*_STEPS, "slower", "not_worth_it", "recomputed", "dtype", "device", "shape", "fuel", "pass"],
)
@pytest.mark.parametrize("target", ["aten.cat.default", "_log_api_usage_once"])
def test_what_would_not_pay_is_no_advice(code: str, target: str) -> None:
    many = tuple(row(code, "a reason", target=target, calls=50) for _ in range(10))
    assert advise(Coverage((CLUSTER,), many)) == []
    hardly = row(code, "a reason", flops=CLUSTER.flops // 2000)
    assert advise(Coverage((CLUSTER,), (hardly,))) == []
    quick = row(code, "a reason", ms=0.05)
    assert advise(Coverage((replace(CLUSTER, engine_ms=4.0, pytorch_ms=9.0),), (quick,))) == []


@pytest.mark.parametrize(
    ("rejected", "advice"),
    [
        (
            row("no_converter", "aten.cat.default has no converter", flops=10**9),
            "aten.cat.default needs a converter (@fxtrt.converts registers one): 1 node, "
            "1.00 GFLOPs",
        ),
        (
            row("check", "aten.cat.default: 9 tensors", flops=10**9),
            "aten.cat.default needs a converter that takes this call: 9 tensors: 1 node, "
            "1.00 GFLOPs",
        ),
        (
            row("too_small", "2 compute nodes", flops=10**8),
            "whitelist roi_heads, or lower min_cluster_size: 1 node, 0.10 GFLOPs",
        ),
        (row("opt_in", "why", ms=2.0), "whitelist aten.cat.default: 1 node, 2.00 ms"),
        (
            row("build_failed", "no memory", flops=10**9),
            "see why TensorRT does not build this, or set on_build_failure='bisect', which keeps "
            "engines for all but the nodes that fail: no memory: 1 node, 1.00 GFLOPs",
        ),
        (
            row("outside", "outside of any graph", ms=2.0),
            "let roi_heads be captured: no graph holds it: 1 node, 2.00 ms",
        ),
    ],
)
def test_advice_that_pays_says_what_to_do(rejected: RejectionRow, advice: str) -> None:
    (found,) = advise(Coverage((replace(CLUSTER, pytorch_ms=9.0),), (rejected,)))
    assert str(found) == advice


def test_a_small_cluster_joins_no_others() -> None:
    """Where it did, it would be part of their cluster already."""
    nodes = [PictureNode("a", "t", "", 0), PictureNode("b", "t", "", None, 0)]
    drawn = Picture((*nodes, PictureNode("c", "t", "", 1)), ((0, 1), (1, 2)))
    both = (CLUSTER, replace(CLUSTER, name="cluster_1"))
    for code, joins in (("too_small", False), ("no_converter", True)):
        report = Coverage(both, (row(code, "why"),), pictures=(drawn,))
        assert [a.joins for a in advise(report)] == [(("cluster_0", "cluster_1"),)] * joins


@pytest.mark.parametrize(
    ("options", "code", "step"),
    [
        ({"min_cluster_size": 9}, "too_small", "lower min_cluster_size"),
        (
            {"blacklist": ("aten.linear",)},
            "blacklist",
            "take aten.linear.default off the blacklist",
        ),
    ],
)
def test_advice_knows_the_reason(options: dict[str, Any], code: str, step: str) -> None:
    report = fxtrt.report(Model().eval(), (X,), engine="reference", **options)
    assert code in {row.code for row in report.rejections}
    assert any(step in item.step for item in advise(report))
