"""Comparing an area with the borders of levels decides as the libraries' formulas do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxtrt.detection.region_levels import level_borders, levels_of

PYRAMID = (0.25, 0.125, 0.0625, 0.03125)
LIBRARIES = ("detectron2", "torchvision")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("scales", [PYRAMID, (0.25, 0.0625), (1.0, 0.5)])
@pytest.mark.parametrize(("size", "canonical_level"), [(224, 4), (112, 3), (1, 0)])
def test_a_border_is_the_smallest_area_of_its_level(
    scales: tuple[float, ...], size: int, canonical_level: int, library: str
) -> None:
    rule = (scales, size, canonical_level, library)
    borders = torch.tensor(level_borders(*rule))
    assert len(borders) == round(math.log2(scales[0] / scales[-1]))
    for level, border in enumerate(borders, 1):
        below = torch.nextafter(border, torch.tensor(0.0))
        assert levels_of(torch.stack([below, border]), *rule).tolist() == [level - 1, level]


@given(
    st.lists(st.floats(0, 2.0**24, width=32) | st.just(math.inf), min_size=1),
    st.sampled_from(LIBRARIES),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_borders_and_formula_agree(areas: list[float], library: str) -> None:
    rule = (PYRAMID, 224, 4, library)
    drawn = torch.tensor(areas, dtype=torch.float32)
    counted = (drawn[:, None] >= torch.tensor(level_borders(*rule))).sum(1)
    assert torch.equal(levels_of(drawn, *rule), counted)


def test_the_libraries_differ_just_below_a_border() -> None:
    borders = [level_borders(PYRAMID, 224, 4, library)[1] for library in LIBRARIES]
    assert borders[1] < borders[0] < 224 * 224


def test_a_negative_area_has_no_level() -> None:
    areas = torch.tensor([-1.0, -math.inf, math.nan])
    assert levels_of(areas, PYRAMID, 224, 4, "detectron2").tolist() == [-1, -1, -1]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_single_level_has_no_borders(library: str) -> None:
    assert level_borders((0.0625,), 224, 4, library) == ()
    assert levels_of(torch.tensor([-1.0, 9.0]), (0.0625,), 224, 4, library).tolist() == [0, 0]
