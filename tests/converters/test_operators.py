"""Every row of the operator table converts, and its network equals eager."""

from __future__ import annotations

import pytest
from layertests import unit_tested
from oprow import (
    OpRow,
    TracedRow,
    compare,
    in_float16,
    layer_kinds,
    rejection_of,
    trace_row,
    traced_row,
)

from fxtrt.conversion.convert import convert
from fxtrt.diagnostics.operator_rows import ROWS
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.network import Network
from fxtrt.registry import registered

ACCEPTED = [row for row in ROWS if row.rejected is None]
DECLINED = [row for row in ROWS if row.rejected is not None]
HALVES = [half for row in ACCEPTED if (half := in_float16(row)) is not None]
DYNAMIC = [row for row in ACCEPTED if row.dynamic]


def run_row(traced: TracedRow, row: OpRow, backend: EngineBackend) -> Network:
    assert rejection_of(traced, backend) is None
    network = convert(traced.gm, backend.features)
    assert set(layer_kinds(network)) <= unit_tested(), "the engine's own tests lack a layer"
    compare(row, traced, network, backend)
    return network


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.id)
def test_equals_eager(row: OpRow, reference: EngineBackend) -> None:
    network = run_row(traced_row(row), row, reference)
    assert "SHAPE" not in layer_kinds(network), "static sizes need no layers that read them"


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
