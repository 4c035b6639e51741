"""Stack results of varying length into tensors of fixed shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["new_found", "pad_found", "pad_rows"]


def pad_rows(parts: Sequence[Tensor], length: int, value: float) -> Tensor:
    """Stack tensors after padding the first dimension of each to `length` with `value`.

    Args:
        parts: (K, ...) each, with K up to `length` and otherwise equal shapes; at least one.

    Returns:
        (len(parts), length, ...).
    """
    stacked = parts[0].new_full((len(parts), length, *parts[0].shape[1:]), value)
    for row, part in zip(stacked, parts, strict=True):
        row[: len(part)] = part
    return stacked


def pad_found(
    found: Sequence[tuple[Tensor, ...]], most: int, image_sizes: Tensor, labels: int
) -> list[Tensor]:
    """Stack what was found in each image: pad boxes and scores with 0, labels with -1.

    Args:
        found: boxes (N, 4), scores (N,) and as many labels (N,) as `labels` says, for each image;
            N is up to `most`.
        image_sizes: (B, 2); it names the device of what was found in no images.

    Returns:
        (B, most, 4) boxes, (B, most) scores, (B, most) for each of the labels; and (B,) counts,
        int32, each an image's N.
    """
    if not found:
        return new_found(image_sizes, most, labels)
    boxes, scores, *columns = zip(*found, strict=True)
    lengths = [len(part) for part in scores]
    return [
        pad_rows(boxes, most, 0),
        pad_rows(scores, most, 0),
        *(pad_rows(column, most, -1) for column in columns),
        torch.tensor(lengths, dtype=torch.int32, device=scores[0].device),
    ]


def new_found(image_sizes: Tensor, most: int, labels: int) -> list[Tensor]:
    """Allocate what `pad_found` returns, float32 and int64, without values."""
    images = image_sizes.shape[0]
    table = (images, most)
    return [
        image_sizes.new_empty((*table, 4), dtype=torch.float32),
        image_sizes.new_empty(table, dtype=torch.float32),
        *(image_sizes.new_empty(table, dtype=torch.int64) for _ in range(labels)),
        image_sizes.new_empty(images, dtype=torch.int32),
    ]
