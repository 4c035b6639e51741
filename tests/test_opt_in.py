"""An operator with an opt-in converter stays in PyTorch unless the whitelist names it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fxtrt

torchvision = pytest.importorskip("torchvision")


class Pooled(torch.nn.Module):
    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        pooled: Tensor = torchvision.ops.roi_align(x.relu(), regions, 7, 0.5, 2, True)
        return pooled * 2


@pytest.mark.parametrize(
    ("whitelist", "reasons"),
    [((), ["converts only if `whitelist` names it"]), (("torchvision.roi_align",), [])],
    ids=["default", "whitelisted"],
)
def test_the_whitelist_decides(whitelist: tuple[str, ...], reasons: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    images = torch.tensor([[0.0], [1.0], [1.0]])
    regions = torch.cat([images, torch.rand(3, 4, generator=generator) * 30], 1)
    model = Pooled().eval()
    fast = fxtrt.compile(
        model, (x, regions), engine="reference", min_cluster_size=1, whitelist=whitelist
    )
    torch.testing.assert_close(fast(x, regions), model(x, regions))
    rejections = fxtrt.report(fast).rejections
    assert len(rejections) == len(reasons)
    assert all(reason in row.detail for reason, row in zip(reasons, rejections, strict=True))
