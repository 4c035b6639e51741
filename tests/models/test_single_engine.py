"""Lines of popular models that once split them, each in one engine with all around it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxtrt


def keypoints(x: Tensor) -> Tensor:
    """YOLO's pose head decodes every third channel in another way."""
    y = x.clone()
    y[:, 2::3] = y[:, 2::3].sigmoid()
    y[:, 0::3] = (y[:, 0::3] * 2.0 - 0.5) * 8
    return y + 1


def clipped(x: Tensor) -> Tensor:
    """Boxes within an image."""
    boxes = (x * 50).clone()
    boxes[..., 0::2] = boxes[..., 0::2].clamp(0, 40)
    boxes[..., 1::2] = boxes[..., 1::2].clamp(0, 30)
    return boxes * 2


def integral(x: Tensor) -> Tensor:
    """D-FINE's expected distance of a distribution over bins."""
    return F.linear(x.softmax(-1), torch.linspace(-1, 1, x.shape[-1])) * 2 + 1


def grid(x: Tensor) -> Tensor:
    """OWL-ViT's query logits."""
    return torch.einsum("...pd,...qd->...pq", x * 2, x[..., :2, :].relu()) + 1


def spans(x: Tensor) -> Tensor:
    """Grounding DINO's last separator before each token."""
    marks = torch.where(x > 0.5, torch.arange(x.shape[-1]), 0)
    values = torch.cummax(marks, -1).values
    return x * 2 + values


def angles(x: Tensor) -> Tensor:
    return (
        torch.atan2(x * 2, x.flip(-1) + 0.5) + torch.diagonal(x @ x.mT, dim1=-2, dim2=-1)[..., None]
    )


def windows(x: Tensor) -> Tensor:
    y = (x * 2).relu().contiguous()
    return y.as_strided((2, 3, 4), (12, 4, 1)) + torch.cdist(y, y[:, :4] + 1).sum()


def conditioned(x: Tensor) -> Tensor:
    """A batch norm whose scale the input decides."""
    scale = x.mean((0, 2)) * 2
    return F.batch_norm(x * 3, torch.zeros(6), torch.ones(6), scale, scale + 1)


def bags(x: Tensor) -> Tensor:
    words = (x.abs() * 4).long().clamp(max=9)[0]
    table = torch.arange(30.0).reshape(10, 3)
    return F.embedding_bag(words, table, mode="mean") * 2


class Wrapped(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [keypoints, clipped, integral, grid, spans, angles, windows, conditioned, bags],
    ids=lambda function: function.__name__,
)
def test_runs_in_one_engine(function: Callable[[Tensor], Tensor]) -> None:
    model = Wrapped(function).eval()
    x = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    fast = fxtrt.compile(model, (x,), engine="reference")
    torch.testing.assert_close(fast(x), model(x))
    report = fxtrt.report(fast)
    assert report.rejections == ()
    assert len(report.clusters) == 1
