"""Boxes that Hypothesis draws: at borders, with ties, empty, reversed, or beyond the image."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

__all__ = ["HEIGHT", "WIDTH", "boxes"]

HEIGHT, WIDTH = 48, 64
"""The image's size."""


@st.composite
def boxes(draw: st.DrawFn, least: int = 0, most: int = 6, clipped: bool = False) -> Tensor:
    """Draw (N, 4) boxes.

    Args:
        clipped: whether they lie within the image and no side is negative.
    """
    special = st.sampled_from([0.0, 0.5, 7.0, 14.0, 28.0, 30.25, 32.0, float(HEIGHT), float(WIDTH)])
    low, high = (0, WIDTH) if clipped else (-2 * WIDTH, 3 * WIDTH)
    number = special | st.floats(low, high, width=32)
    count = draw(st.integers(least, most))
    drawn = draw(st.lists(st.tuples(*[number] * 4), min_size=count, max_size=count))
    result = torch.tensor(drawn, dtype=torch.float32).view(count, 4)
    if not clipped:
        return result
    corners = result.view(count, 2, 2).sort(1).values
    return torch.minimum(corners, torch.tensor([WIDTH, HEIGHT])).view(count, 4)
