"""A weight that the graph writes to is no constant."""

from __future__ import annotations

import torch
from passcheck import check_keeps, targets
from torch import nn

from fxtrt.capture.export import capture_module
from fxtrt.pass_manager import run_passes
from fxtrt.passes import keep_written_weights


class Mean(nn.Module):
    """A running mean, with a weight that stays."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.writes = writes
        self.register_buffer("mean", torch.ones(3))
        self.register_buffer("scale", torch.full((3,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (x + self.mean * 3) * self.scale
        if self.writes:
            self.mean.mul_(0.5)
        return y


def test_what_is_written_is_read_at_each_call() -> None:
    gm = capture_module(Mean(writes=True).eval(), (torch.zeros(3),))
    assert keep_written_weights(gm)
    assert not keep_written_weights(gm)
    run_passes(gm)
    assert targets(gm).count("fxtrt.live.default") == 1
    for expected in (6.0, 3.0, 1.5):
        torch.testing.assert_close(gm(torch.zeros(3)), torch.full((3,), expected))


def test_other_weights_stay_constants() -> None:
    check_keeps(keep_written_weights, capture_module(Mean(writes=False).eval(), (torch.zeros(3),)))
