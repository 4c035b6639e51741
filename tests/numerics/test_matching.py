"""Detections are paired by how much they overlap, each once."""

from __future__ import annotations

import torch

from fxtrt.numerics.matching import assign, overlaps


def test_overlaps() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    others = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],
            [5.0, 0.0, 15.0, 10.0],
            [20.0, 0.0, 30.0, 10.0],
            [2.0, 2.0, 2.0, 2.0],
        ]
    )
    torch.testing.assert_close(
        overlaps(box, others), torch.tensor([[1.0, 1 / 3, 0.0, 0.0]], dtype=torch.float64)
    )


def test_an_empty_box_overlaps_itself() -> None:
    flat = torch.tensor([[5.0, 5.0, 5.0, 9.0]])
    assert overlaps(flat, flat).item() == 1.0


def test_a_box_that_is_no_number_overlaps_nothing() -> None:
    box = torch.full((1, 4), float("nan"))
    assert overlaps(box, box).item() == 0.0


def test_the_first_row_takes_the_closest_and_the_next_what_is_left() -> None:
    closeness = torch.tensor([[0.6, 0.9, 0.1], [0.5, 0.8, 0.7], [0.9, 0.9, 0.9]])
    fits = torch.tensor([[True, True, True], [True, True, False], [False, True, False]])
    assert assign(closeness, fits).tolist() == [1, 0, -1]


def test_sides_without_detections() -> None:
    assert assign(torch.ones(2, 0), torch.ones(2, 0, dtype=torch.bool)).tolist() == [-1, -1]
    assert assign(torch.ones(0, 2), torch.ones(0, 2, dtype=torch.bool)).tolist() == []
