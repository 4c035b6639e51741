"""Random outputs of detectors' heads, with the special values that trip box selection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SPECIAL", "BoxHead", "DenseHead", "assert_rows", "box_head", "dense_head", "maps_of"]

SPECIAL = ("", "ties", "degenerate", "not finite", "nothing")


@dataclass(frozen=True)
class BoxHead:
    """The outputs of a box head for B * R proposals, and the proposals themselves."""

    logits: list[Tensor]
    deltas: Tensor
    proposals: Tensor
    counts: Tensor
    sizes: Tensor

    def shapes(self) -> list[tuple[int, int]]:
        return [(int(height), int(width)) for height, width in self.sizes.tolist()]

    def live(self, table: Tensor) -> list[Tensor]:
        """Return the rows of each image that are no padding."""
        images = table.view(*self.proposals.shape[:2], -1)
        return [rows[:count] for rows, count in zip(images, self.counts.tolist(), strict=True)]


def box_head(
    seed: int, counts: Sequence[int], classes: int, moves: int, special: str = "", stages: int = 1
) -> BoxHead:
    """Make a case of which the rows behind `counts` hold NaN, which nothing may read.

    Args:
        classes: the columns of the logits, including the background.
        moves: how many sets of deltas each proposal has.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    images, most = len(counts), max(counts) + 3
    corners = randn(images, most, 2).abs() * 30
    sides = randn(images, most, 2).abs() * 25 + 1
    if special == "degenerate":
        sides[:, ::3] = 0
        corners[:, ::4] += 200
    proposals = torch.cat([corners, corners + sides], -1)
    logits = [randn(images * most, classes) * 3 for _ in range(stages)]
    deltas = randn(images * most, moves * 4)
    if special == "ties":
        logits = [x.round() for x in logits]
        proposals[:, 1::2] = proposals[:, :1]
        deltas = deltas.round()
    if special == "not finite":
        logits[0][::7, 1], logits[-1][3::11, 0], logits[0][5::13] = torch.nan, torch.inf, -torch.inf
        deltas[1::7, -1], deltas[2::9, 0], deltas[4::9, 1] = torch.nan, torch.inf, -torch.inf
    if special == "nothing":
        logits = [x * 0 for x in logits]
    head = BoxHead(
        logits,
        deltas,
        proposals,
        torch.tensor(counts, dtype=torch.int32),
        torch.tensor([[60.0, 80.0], [70.0, 50.0], [33.0, 90.0]])[:images].clone(),
    )
    for image, count in enumerate(counts):
        proposals[image, count:] = torch.nan
        for table in (*logits, deltas):
            table.view(images, most, -1)[image, count:] = torch.nan
    return head


@dataclass(frozen=True)
class DenseHead:
    """The outputs of a one-stage detector's head for each level."""

    logits: list[Tensor]
    deltas: list[Tensor]
    centerness: list[Tensor]
    sizes: Tensor

    def shapes(self) -> list[tuple[int, int]]:
        return [(int(height), int(width)) for height, width in self.sizes.tolist()]


def dense_head(
    seed: int,
    grids: Sequence[tuple[int, int]],
    anchors: Sequence[int],
    classes: int,
    special: str = "",
    centerness: bool = False,
    images: int = 2,
) -> DenseHead:
    """Make a case with levels of the sizes `grids`."""
    generator = torch.Generator().manual_seed(seed)
    levels = list(zip(grids, anchors, strict=True))

    def maps(channels: int) -> list[Tensor]:
        made = [torch.randn(images, a * channels, *g, generator=generator) for g, a in levels]
        return [x.round() for x in made] if special == "ties" else made

    logits, deltas = [x * 2 for x in maps(classes)], maps(4)
    if special == "nothing":
        logits = [x * 0 - 20 for x in logits]
    if special == "degenerate":
        deltas = [x * 0 - 50 for x in deltas]
    if special == "not finite":
        for x in (*logits, *deltas):
            flat = x.view(-1)
            flat[::7], flat[3::31], flat[5::37] = torch.nan, torch.inf, -torch.inf
    return DenseHead(
        logits,
        deltas,
        maps(1) if centerness else [],
        torch.tensor([[60.0, 80.0], [70.0, 50.0], [33.0, 90.0]])[:images].clone(),
    )


def maps_of(maps: Sequence[Tensor], channels: int) -> list[Tensor]:
    """Turn (B, A * channels, h, w) into (B, h * w * A, channels), as heads of torchvision do."""
    split = [x.reshape(len(x), -1, channels, *x.shape[2:]) for x in maps]
    return [x.permute(0, 3, 4, 1, 2).reshape(len(x), -1, channels) for x in split]


def assert_rows(
    actual: Iterable[Tensor], counts: Tensor, expected: Sequence[Sequence[Tensor]]
) -> None:
    """Assert that padded results hold what is expected, to the bit, and padding behind it.

    Args:
        actual: boxes, scores, and then classes or rows, which are padded with -1.
        expected: the same for each image, unpadded.
    """
    assert counts.dtype == torch.int32
    assert counts.tolist() == [len(image[0]) for image in expected]
    for place, column in enumerate(actual):
        for rows, count, image in zip(column, counts.tolist(), expected, strict=True):
            torch.testing.assert_close(
                rows[:count], image[place], atol=0, rtol=0, equal_nan=True, check_stride=False
            )
            assert (rows[count:] == (-1 if place > 1 else 0)).all()
