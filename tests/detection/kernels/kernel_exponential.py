"""`exp` and the sigmoid within kernels are PyTorch's: to the bit on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from kernel_device import DEVICE
from torch import Tensor

from fxtrt.detection.kernels import exponential
from fxtrt.detection.kernels.decode import EXACT


@triton.jit
def _apply(x, result, SIGMOID: tl.constexpr, LENGTH: tl.constexpr):
    place = tl.program_id(0) * LENGTH + tl.arange(0, LENGTH)
    value = tl.load(x + place)
    if SIGMOID:
        tl.store(result + place, exponential.sigmoid(value))
    else:
        tl.store(result + place, exponential.exp(value))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("function", [torch.exp, torch.sigmoid])
def test_values(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 20
    x[:6] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 80.0, -80.0])
    x = x.to(DEVICE)
    actual = torch.empty_like(x)
    _apply[(4,)](x, actual, SIGMOID=function is torch.sigmoid, LENGTH=1024, **EXACT)
    tolerance = 0 if DEVICE == "cuda" else 5e-7
    torch.testing.assert_close(actual, function(x), rtol=tolerance, atol=0, equal_nan=True)
