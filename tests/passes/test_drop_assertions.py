"""Assertions leave the graph, and so does what only they read."""

from __future__ import annotations

from typing import Any

import torch
from passcheck import check_changes, check_keeps, targets

from fxtrt.capture.export import capture_module, trace
from fxtrt.passes import drop_assertions

aten = torch.ops.aten


class Checked(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count: Any = x.to(torch.int64).max().item()
        torch._check(count >= 1)
        torch._check(count <= 9)
        return x.new_ones(count) * 2


def test_drops_size_checks_of_an_exported_graph() -> None:
    x = torch.tensor([1.0, 3.0])
    gm = capture_module(Checked().eval(), (x,))
    assert any("assert" in target for target in targets(gm))
    check_changes(drop_assertions, gm, (x,))
    assert not any("assert" in t or "constrain" in t or t in ("ge", "le") for t in targets(gm))


def test_drops_tensor_checks_and_what_only_they_read() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        aten._assert_async.msg((x > -100).all(), "far too small")
        aten._assert_tensor_metadata.default(x, None, None, torch.float32)
        return x.relu()

    x = torch.randn(3)
    gm = trace(function, (x,))
    assert "_assert_async.msg" in targets(gm)
    check_changes(drop_assertions, gm, (x,))
    assert targets(gm) == ["relu.default"]


def test_keeps_a_comparison_that_is_also_used() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        big = (x < 100).all()
        aten._assert_async.msg(big, "too big")
        return big

    x = torch.randn(3)
    gm = trace(function, (x,))
    check_changes(drop_assertions, gm, (x,))
    assert targets(gm) == ["lt.Scalar", "all.default"]


def test_keeps_a_graph_without_assertions() -> None:
    check_keeps(drop_assertions, trace(lambda x: x.relu(), (torch.randn(3),)))
