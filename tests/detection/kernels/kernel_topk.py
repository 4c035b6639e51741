"""Radix selection orders as a stable sort does."""

from __future__ import annotations

import pytest
import torch
from kernel_device import DEVICE
from torch import Tensor

from fxtrt.detection.kernels import topk
from fxtrt.detection.kernels.topk import best_of_levels


def awkward(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Values with ties, zeros of both signs, infinities and NaN."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=generator) * 8).round() / 4
    x[torch.rand(shape, generator=generator) < 0.1] = -0.0
    for value in (torch.nan, torch.inf, -torch.inf):
        x[torch.rand(shape, generator=generator) < 0.02] = value
    return x.to(DEVICE, dtype)


def assert_sorted(maps: list[Tensor], most: int) -> None:
    values, index = best_of_levels(maps, most)
    assert values.shape == index.shape == (maps[0].shape[0], len(maps), most)
    for level, one in enumerate(maps):
        flat = one.permute(0, 2, 3, 1).flatten(1) if one.dim() == 4 else one
        ordered, order = flat.float().sort(dim=1, descending=True, stable=True)
        count = min(most, flat.shape[1])
        assert torch.equal(index[:, level, :count], order[:, :count].int())
        torch.testing.assert_close(
            values[:, level, :count], ordered[:, :count], rtol=0, atol=0, equal_nan=True
        )
        assert (values[:, level, count:] == -torch.inf).all()
        assert not index[:, level, count:].any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("most", [1, 120])
def test_maps(most: int, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    shapes = ((2, 3, 11, 17), (2, 3, 5, 7), (2, 3, 1, 1))
    maps = [awkward(shape, dtype, most).contiguous(memory_format=memory_format) for shape in shapes]
    assert_sorted(maps, most)


def test_by_rising_index() -> None:
    maps = [awkward((2, 500), torch.float32, 5), awkward((2, 30), torch.float32, 6)]
    values, index = best_of_levels(maps, 40)
    rising_values, rising = best_of_levels(maps, 40, by_index=True)
    for level, count in enumerate((40, 30)):
        order = index[:, level, :count].argsort(1)
        assert torch.equal(rising[:, level, :count], index[:, level, :count].gather(1, order))
        expected = values[:, level, :count].gather(1, order)
        torch.testing.assert_close(rising_values[:, level, :count], expected, equal_nan=True)


def test_all_of_a_map() -> None:
    assert_sorted([awkward((1, 300), torch.float32, 1)], 300)


@pytest.mark.parametrize("chunks", [3, 140])
def test_ties_of_several_chunks_are_taken_in_order(
    chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value of a chunk is a tie, and not all ties are selected."""
    monkeypatch.setattr(topk, "_CHUNK", 256)
    x = torch.full((1, chunks * 256), -1.0, dtype=torch.float16, device=DEVICE)
    x[:, 9::256] = 0
    x[:, -1] = 1
    assert_sorted([x], chunks - 1)


def test_maps_of_mixed_layouts() -> None:
    maps = [awkward((2, 4, 6, 8), torch.float32, 2), awkward((2, 4, 8, 6), torch.float32, 3)]
    assert_sorted([maps[0].contiguous(memory_format=torch.channels_last), maps[1].mT], 50)


@pytest.mark.parametrize(("images", "most"), [(0, 5), (2, 0)])
def test_nothing_to_select(images: int, most: int) -> None:
    values, index = best_of_levels([torch.zeros(images, 9, device=DEVICE)], most)
    assert values.shape == index.shape == (images, 1, most)


def test_a_level_may_be_empty() -> None:
    assert_sorted([torch.zeros(2, 0, device=DEVICE), awkward((2, 30), torch.float32, 4)], 10)


def test_float64_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float64.*convert to float32"):
        best_of_levels([torch.zeros(1, 9, dtype=torch.float64, device=DEVICE)], 3)
