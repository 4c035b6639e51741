"""Whole models become one engine that equals eager; docs/reference/coverage.md lists them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")
pytest.importorskip("timm", reason="timm is not installed")

from coverage_measurement import Measurement, Run, from_float64, measure
from coverage_table import HEADERS, cells, document
from torch import nn
from zoo import EXAMPLES, Example, enliven
from zoo_inputs import image

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "coverage.md"
QUICK = ("alexnet", "squeezenet1_0", "RPN head", "box head")


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


def test_errors_from_float64_are_those_of_each_model() -> None:
    eager = nn.Linear(8, 8, bias=False)
    wrong = copy.deepcopy(eager)
    with torch.no_grad():
        wrong.weight.mul_(1.5)
        engines_error, eagers_error = from_float64(wrong, eager, [(torch.randn(4, 8),)])
    assert engines_error == pytest.approx(0.5, rel=1e-4)
    assert eagers_error < 1e-5


def test_an_error_is_shown_beside_eagers_own() -> None:
    run = Run(1, 5, 5, 5, 1.0, 3e-4, (1e-4, 2e-4))
    assert not run.whole
    text = document([Measurement("timm", "a model", "N", run, run)], {})
    own = "the error is 3.00e-04; from the same model in float64, the engine's is 1.0e-04"
    assert own in " ".join(text.split())


def test_no_parameter_is_left_constant() -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    enliven(model)
    for parameter in model.parameters():
        assert parameter.std() > 0.01


def test_the_table_can_be_read_back() -> None:
    run = Run(1, 20, 5, 5, 1.0, 3e-6, (), 1.5, 12.0)
    problem = Run(problem="it does not export")
    peer = {"a model": {"version": "9", "operators": 7, "supported": 6, "engines": 2}}
    text = document([Measurement("timm", "a model", "N", run, problem)], peer)
    figures = ["1", "5/5", "100.0%", "20", "3e-06", "1.5 s, 12 MiB"]
    assert cells(text) == {"a model": [*figures, "N", *["-"] * 6]}
    assert "**a model**, dynamic sizes: it does not export" in text


def test_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match="the columns are"):
        cells("| " + " | ".join(reversed(HEADERS)) + " |")


def test_the_document_has_every_model_as_one_engine() -> None:
    rows = cells(DOCUMENT.read_text())
    assert list(rows) == [example.name for example in EXAMPLES]
    for name, row in rows.items():
        for engines, nodes, flops, _, error, _ in (row[:6], row[7:]):
            inside, total = nodes.split("/")
            assert (engines, flops, inside) == ("1", "100.0%", total), name
            assert float(error) < 2e-4, name
