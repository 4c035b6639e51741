"""What converters emit where TensorRT is older (8.6) has the same numbers."""

from __future__ import annotations

import math

import pytest
import torch
from oprow import OpRow, T, rejection_of, trace_row
from torch.testing import assert_close

from fxtrt.conversion.convert import convert
from fxtrt.diagnostics.operator_rows import ROWS
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.features import Features
from fxtrt.errors import ConversionError

aten = torch.ops.aten

CONCERNED = (
    "aten.where",
    "aten.masked_fill",
    "aten.nan_to_num",
    "aten.isfinite",
    "aten.scaled_dot_product_attention",
    "aten.constant_pad_nd",
    "aten.pad",
)


class Older(Features):
    """A newer TensorRT that is asked for no more than an older one can do."""

    infinite_operands = False
    samples_bools = False


OF_THOSE = [row for row in ROWS if row.rejected is None and str(row.target).startswith(CONCERNED)]


@pytest.mark.parametrize("row", OF_THOSE, ids=lambda row: row.id)
def test_row_equals_eager(row: OpRow, reference: EngineBackend) -> None:
    traced = trace_row(row)
    assert rejection_of(traced, reference) is None
    network = convert(traced.gm, Older(reference.features.trt))
    actual = reference.load(network, network.inputs, network.outputs).run(traced.inputs)
    for a, e in zip(actual, traced.gm(*traced.inputs), strict=True):
        assert_close(a, e, atol=row.tolerance, rtol=row.tolerance, equal_nan=True)


def test_an_infinite_number_is_refused_elsewhere(reference: EngineBackend) -> None:
    traced = trace_row(OpRow(aten.add.Tensor, (T((2, 3)), math.inf)))
    with pytest.raises(ConversionError, match="makes an infinite operand finite"):
        convert(traced.gm, Older(reference.features.trt))
