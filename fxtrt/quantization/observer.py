"""Turns the magnitudes of a value, seen in many runs, into the scale that loses least."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e.observer import ObserverBase

__all__ = ["STEPS", "MagnitudeObserver"]

STEPS = 127
"""The largest number of int8 that has a negative."""
_BINS = 2048
_LARGE = 1e38
_THRESHOLDS = 128
"""The number of ranges that are tried, from a hundredth of the largest magnitude on."""


class MagnitudeObserver(ObserverBase):  # type: ignore[misc]  # torchao has no types
    """Counts magnitudes in bins, and finds the range with the least squared error in int8.

    Large numbers are clamped where that costs less than coarser steps for all others. Zeros are
    exact at any scale, so they do not count. The range of the bins doubles when it is too small, by
    which two bins become one, so the order of the examples hardly matters.
    """

    def __init__(self, dtype: torch.dtype = torch.int8, **qspec: Any) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        # convert_pt2e reads these.
        self.qscheme = torch.per_tensor_symmetric
        self.quant_min, self.quant_max, self.ch_axis = -STEPS - 1, STEPS, -1
        self.counts = torch.zeros(_BINS, dtype=torch.float64)
        self.range = 0.0
        self.finite = True

    def forward(self, x: Tensor) -> Tensor:
        sizes = x.detach().float().abs().flatten()
        if sizes.numel() == 0:
            return x
        largest = float(sizes.max())
        if not largest < float("inf"):
            self.finite = False
        elif largest > 0:
            self._widen(largest)
            # The upper end of the bins may be beyond float32.
            wide = sizes.double() if self.range > _LARGE else sizes
            self.counts += torch.histc(wide[wide > 0], _BINS, 0.0, self.range).double().cpu()
        return x

    def _widen(self, largest: float) -> None:
        if self.range == 0:
            self.range = largest
        while self.range < largest:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = torch.cat([pairs, torch.zeros_like(pairs)])
            self.range *= 2

    def scale(self) -> float:
        """Return the step of int8 with the least squared error, or 1.0 if all was zero."""
        used = self.counts.nonzero()
        if used.numel() == 0:
            return 1.0
        width = self.range / _BINS
        values = (torch.arange(_BINS, dtype=torch.float64) + 0.5) * width
        top = (int(used.max()) + 1) * width
        shares = torch.linspace(0.01, 1.0, _THRESHOLDS, dtype=torch.float64)
        scales = (top * shares / STEPS)[:, None]
        steps = torch.round(values / scales).clamp(max=STEPS)
        errors = ((values - steps * scales) ** 2 * self.counts).sum(1)
        return float(scales[int(errors.argmin())])

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return torch.tensor([self.scale()]), torch.tensor([0], dtype=torch.int64)
