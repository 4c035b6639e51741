"""Every row of the operator table converts, and its network equals eager."""

from __future__ import annotations

import pytest
import torch
from opinfos import ROWS
from oprow import OpRow, TracedRow, in_float16, rejection_of, trace_row

from fxtrt.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.registry import registered

ACCEPTED = [row for row in ROWS if row.rejected is None]
DECLINED = [row for row in ROWS if row.rejected is not None]
HALVES = [half for row in ACCEPTED if (half := in_float16(row)) is not None]
DYNAMIC = [row for row in ACCEPTED if row.dynamic]


def run_row(traced: TracedRow, row: OpRow, backend: EngineBackend) -> None:
    assert rejection_of(traced, backend) is None
    network = convert(traced.gm, backend.features)
    engine = backend.load(network if not backend.plans else b"", network.inputs, network.outputs)
    expected = traced.gm(*traced.inputs)
    actual = engine.run(traced.inputs)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=row.tolerance, rtol=row.tolerance, equal_nan=True)


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.id)
def test_equals_eager(row: OpRow, reference: EngineBackend) -> None:
    run_row(trace_row(row), row, reference)


@pytest.mark.parametrize("row", HALVES, ids=lambda row: row.id)
def test_equals_eager_in_float16(row: OpRow, reference: EngineBackend) -> None:
    traced = trace_row(row)
    if rejection := rejection_of(traced, reference):
        pytest.skip(rejection.detail)
    try:
        run_row(traced, row, reference)
    except NotImplementedError as error:
        pytest.skip(f"PyTorch has no CPU kernel: {error}")


@pytest.mark.parametrize("row", DYNAMIC, ids=lambda row: row.id)
def test_equals_eager_with_dynamic_shapes(row: OpRow, reference: EngineBackend) -> None:
    run_row(trace_row(row, dynamic=True), row, reference)


@pytest.mark.parametrize("row", DECLINED, ids=lambda row: row.id)
def test_is_declined_with_its_reason(row: OpRow, reference: EngineBackend) -> None:
    rejection = rejection_of(trace_row(row, dynamic=row.dynamic), reference)
    assert rejection is not None
    assert row.rejected is not None
    assert row.rejected in rejection.detail


def test_every_converter_has_a_row() -> None:
    assert {row.target for row in ROWS} == set(registered())
