"""Boxes are decoded and clipped within kernels as `box_coding` does."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from kernel_device import DEVICE
from torch import Tensor

from fxtrt.detection import box_coding
from fxtrt.detection.kernels.decode import EXACT, clip, decode, inverses


@triton.jit
def _decode_rows(deltas, boxes, sizes, decoded, count, inverse_weights, ROWS: tl.constexpr):
    row = tl.arange(0, ROWS)
    mask = row < count
    d, b, out = deltas + row * 4, boxes + row * 4, decoded + row * 4
    x1, y1, x2, y2 = decode(
        tl.load(d, mask=mask), tl.load(d + 1, mask=mask), tl.load(d + 2, mask=mask),
        tl.load(d + 3, mask=mask), tl.load(b, mask=mask), tl.load(b + 1, mask=mask),
        tl.load(b + 2, mask=mask), tl.load(b + 3, mask=mask), inverse_weights,
    )  # fmt: skip
    tl.store(out, clip(x1, tl.load(sizes + 1)), mask=mask)
    tl.store(out + 1, clip(y1, tl.load(sizes)), mask=mask)
    tl.store(out + 2, clip(x2, tl.load(sizes + 1)), mask=mask)
    tl.store(out + 3, clip(y2, tl.load(sizes)), mask=mask)


def rows() -> tuple[Tensor, Tensor]:
    """Deltas and boxes, with what is not finite and what is limited among them."""
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(120, 4, generator=generator) * 3
    for i, value in enumerate((torch.nan, torch.inf, -torch.inf, 1e30, -1e30)):
        deltas[4 * i : 4 * i + 4] += torch.diag(torch.full((4,), value)).nan_to_num(value, 0, 0)
        deltas[20 + i, i % 4] = value
    corners = torch.rand(120, 2, generator=generator) * 50
    return deltas, torch.cat([corners, corners + torch.rand(120, 2, generator=generator) * 30], 1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decoded_boxes(weights: tuple[float, ...]) -> None:
    deltas, boxes = rows()
    size = torch.tensor([60.0, 80.0])
    expected = box_coding.clip(box_coding.apply_deltas(deltas, boxes, weights)[:, 0], size)
    actual = torch.empty_like(boxes, device=DEVICE)
    _decode_rows[(1,)](
        deltas.to(DEVICE), boxes.to(DEVICE), size.to(DEVICE), actual, 120, inverses(weights),
        ROWS=128, **EXACT,
    )  # fmt: skip
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-6, atol=2e-5, equal_nan=True)
    assert expected.isnan().any()
    assert expected.isfinite().all(1).sum() > 80


def test_inverses_are_those_of_float32() -> None:
    expected = 1 / torch.tensor([0.1, 3.0, 10.0, 1e-3])
    assert torch.tensor(inverses([0.1, 3.0, 10.0, 1e-3])).tolist() == expected.tolist()
