"""The tolerance of an output is far below what must be found, in the magnitude of each part."""

from __future__ import annotations

import pytest
import torch

from fxtrt.capture.export import trace
from fxtrt.numerics.agreement import agreement
from fxtrt.numerics.tolerance import magnitude, tolerances

X = torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(0))


def deep(x: torch.Tensor) -> torch.Tensor:
    """Fifty convolutions that add up 576 terms each."""
    weight = torch.ones(64, 64, 3, 3)
    for _ in range(50):
        x = torch.conv2d(x, weight, padding=1).relu()
    return x


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("model", 1e-5, 2e-4), ("tf32", 1e-2, 5e-2)]
)
def test_a_deep_network_has_the_tolerance_of_its_sums(
    precision: str, least: float, most: float
) -> None:
    (tolerance,) = tolerances(trace(deep, (X,)).graph, precision)
    assert least < tolerance < most


def test_what_picks_numbers_adds_nothing() -> None:
    gm = trace(lambda x: torch.cat([x.relu(), x]).amax(1).view(-1), (X,))
    (tolerance,) = tolerances(gm.graph, "model")
    assert tolerance == pytest.approx(8 * 2.0**-24)


def test_one_element_in_a_thousand_is_enough() -> None:
    clean = [X]
    wrong = X.flatten().clone()
    wrong[::1000] *= 1.01
    result = agreement([wrong.view_as(X)], clean, clean, [1e-4], lambda seed: clean)
    assert result.wrong is not None
    assert result.compared == X.numel()


def test_columns_and_outliers_have_magnitudes_of_their_own() -> None:
    scores = torch.rand(200, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    boxes = torch.full((200, 4), 500.0)
    table = torch.cat([boxes, scores], 1)
    sizes = magnitude(table).expand(table.shape)
    assert float(sizes[0, 0]) == pytest.approx(447, rel=0.2)
    assert float(sizes[0, 4]) < 1.2
    filled = X.clone()
    filled[0, 0, 0, :8] = -1e9
    filled[0, 1, 0, 0] = -torch.inf
    assert float(magnitude(filled).max()) < 40


def test_a_wrong_score_beside_large_boxes_is_found() -> None:
    table = torch.cat([torch.full((200, 4), 500.0), torch.rand(200, 1) + 0.1], 1)
    wrong = table.clone()
    wrong[7, 4] *= 1.01
    result = agreement([wrong], [table], [table], [1e-4], lambda seed: [table])
    assert result.wrong is not None
    assert result.wrong.index == (7, 4)
