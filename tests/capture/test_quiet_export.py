"""Standard error is held back while a block runs, and lost only where the block raises."""

from __future__ import annotations

import sys

import pytest
import torch

from fxtrt.capture.export import capture_module
from fxtrt.capture.quiet_export import silent_if_it_fails
from fxtrt.errors import CaptureError


def test_a_block_that_succeeds_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with silent_if_it_fails():
        sys.stderr.write("a hint")
    assert capsys.readouterr().err == "a hint"


def test_a_block_that_fails_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with pytest.raises(KeyError), silent_if_it_fails():
        {"": sys.stderr.write("a graph of a thousand lines")}["missing"]
    assert capsys.readouterr().err == ""
    assert sys.stderr is before


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x[x > 0]
        return kept if kept.sum() > 1 else kept + 1


def test_an_export_that_fails_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CaptureError, match="Branches"):
        capture_module(Branches().eval(), (torch.randn(9),))
    assert capsys.readouterr().err == ""
