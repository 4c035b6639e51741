"""What no output depends on leaves the graph; inputs and side effects stay."""

from __future__ import annotations

import torch
from passcheck import check_changes, check_keeps, targets, weights

from fxtrt.capture.export import capture_module, trace
from fxtrt.passes import drop_dead_code

aten = torch.ops.aten


def test_drops_unread_calls_and_weights() -> None:
    w = torch.randn(3)

    def function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.relu(), (y + w).exp()

    inputs = (torch.randn(3), torch.randn(3))
    gm = trace(function, inputs)
    output = gm.graph.output_node()
    output.args = (output.args[0][:1],)  # type: ignore[index]  # trace gives a tuple
    gm.recompile()
    assert weights(gm)
    check_changes(drop_dead_code, gm, inputs)
    assert targets(gm) == ["relu.default"]
    assert weights(gm) == []
    assert len(gm.graph.find_nodes(op="placeholder")) == 2


def test_keeps_writes_and_random_numbers() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        aten.rand.default([3])
        return x.relu()

    check_keeps(drop_dead_code, trace(function, (torch.randn(3),)))

    class Writes(torch.nn.Module):
        last: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last.copy_(x)
            return x.relu()

    gm = capture_module(Writes().eval(), (torch.randn(3),))
    drop_dead_code(gm)
    assert "copy_.default" in targets(gm)
