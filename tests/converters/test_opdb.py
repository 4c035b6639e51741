"""PyTorch's own samples of its operators: what converts equals eager, the rest has a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import opdb
import pytest
from opdb import Outcome

from fxtrt.engines.base import EngineBackend

internal = pytest.importorskip("torch.testing._internal.common_methods_invocations")

FEW = 1
"""Samples per operator and dtype, unless pytest gets --all-samples."""
LEAST_EQUAL = {"ops": 270, "samples": 1200}


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[list[Outcome]]:
    """What became of the samples of every operator; the counts are printed and kept as JSON."""
    gathered: list[Outcome] = []
    yield gathered
    counts = json.dumps(opdb.summary(gathered), indent=1)
    default = tmp_path_factory.getbasetemp() / "opdb.json"
    path = request.config.getoption("--opdb-json") or default
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(counts)
    print(counts)


@pytest.mark.parametrize("op", internal.op_db, ids=lambda op: op.full_name)
def test_equals_eager_or_is_refused(
    op: Any,
    reference: EngineBackend,
    outcomes: list[Outcome],
    request: pytest.FixtureRequest,
) -> None:
    limit = None if request.config.getoption("--all-samples") else FEW
    found = list(opdb.run_op(op, reference, limit=limit))
    outcomes += found
    assert [outcome for outcome in found if outcome.verdict == opdb.FAILED] == []


def test_enough_of_the_database_is_equal(
    outcomes: list[Outcome], request: pytest.FixtureRequest
) -> None:
    """Skipping and refusing can go too far."""
    if len(request.session.items) < len(internal.op_db):
        pytest.skip("only some operators were asked for")
    equal = [outcome for outcome in outcomes if outcome.verdict == opdb.EQUAL]
    assert len({outcome.op for outcome in equal}) >= LEAST_EQUAL["ops"]
    assert len(equal) >= LEAST_EQUAL["samples"]
