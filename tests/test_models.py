"""Whole models become one engine that equals eager, and docs/coverage.md says so of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")
pytest.importorskip("timm", reason="timm is not installed")

from coverage_measurement import Measurement, Run, measure
from coverage_table import HEADERS, cells, document
from torch import nn
from zoo import EXAMPLES, Example, enliven
from zoo_inputs import image

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "coverage.md"
QUICK = ("alexnet", "squeezenet1_0", "shufflenet_v2_x0_5", "RPN head", "box head")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in QUICK])
def test_a_model_is_one_engine_that_equals_eager(name: str) -> None:
    (example,) = (example for example in EXAMPLES if example.name == name)
    measurement = measure(example, plans=False)
    assert measurement.static.whole, measurement.static
    assert measurement.dynamic.whole, measurement.dynamic


class Split(nn.Module):
    """Its middle has no converter."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(torch.special.bessel_j0(self.before(x).relu())).relu()  # type: ignore[no-any-return]  # a module's call


def test_a_split_model_says_what_splits_it() -> None:
    measurement = measure(Example("test", "split", Split, image(16, 16, 2)), plans=False)
    for run in (measurement.static, measurement.dynamic):
        assert not run.whole
        assert (run.clusters, run.converted, run.nodes, run.flops_share) == (2, 4, 5, 1.0)
        (reason,) = run.outside
        assert reason.startswith("1x aten.special_bessel_j0.default")
        assert run.error < 1e-6


def test_a_model_that_does_not_export_dynamically_says_why() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x * 2) + int(x.shape[-1])  # A number, and no size, from here on.

    measurement = measure(Example("test", "fixed", Fixed, image(16, 16, 2)), plans=False)
    assert measurement.static.converted == 3
    assert "torch.export could not capture Fixed" in measurement.dynamic.problem


def test_no_parameter_is_left_constant() -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    enliven(model)
    for parameter in model.parameters():
        assert parameter.std() > 0.01


def test_the_table_can_be_read_back() -> None:
    run = Run(1, 20, 5, 5, 1.0, 3e-6, 1.5, 12.0)
    problem = Run(problem="it does not export")
    text = document([Measurement("timm", "a model", "N", run, problem)])
    figures = ["1", "5/5", "100.0%", "20", "3e-06", "1.5 s, 12 MiB"]
    assert cells(text) == {"a model": [*figures, "N", *["-"] * 6]}
    assert "**a model**, dynamic sizes: it does not export" in text


def test_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match="the columns are"):
        cells("| " + " | ".join(reversed(HEADERS)) + " |")


def test_the_document_has_every_model() -> None:
    rows = cells(DOCUMENT.read_text())
    assert list(rows) == [example.name for example in EXAMPLES]
