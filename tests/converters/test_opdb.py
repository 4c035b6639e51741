"""PyTorch's own samples of its operators: what converts equals eager, the rest has a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import opdb
import pytest
from opdb import Outcome
from shards import DATABASE_SHARDS, database_shard

from fxtrt.engines.base import EngineBackend

internal = pytest.importorskip("torch.testing._internal.common_methods_invocations")

FEW = 1
"""Samples per operator and dtype, unless pytest gets --all-samples."""
LEAST_EQUAL = {
    "a-c": (41, 200),
    "d-l": (50, 255),
    "m-r": (41, 210),
    "s-z": (45, 225),
    "namespaces": (38, 150),
    "nn": (58, 180),
}
"""Operators and samples of each part of the database."""


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


@pytest.mark.parametrize("shard", DATABASE_SHARDS)
def test_enough_of_the_database_is_equal(
    shard: str, outcomes: list[Outcome], request: pytest.FixtureRequest
) -> None:
    """Skipping and refusing can go too far."""
    wanted = {op.full_name for op in internal.op_db if database_shard(op.full_name) == shard}
    tests = {item.nodeid.partition("[")[2].removesuffix("]") for item in request.session.items}
    if not wanted <= tests:
        pytest.skip("only some operators were asked for")
    equal = [o for o in outcomes if o.op in wanted and o.verdict == opdb.EQUAL]
    ops, samples = LEAST_EQUAL[shard]
    assert len({outcome.op for outcome in equal}) >= ops
    assert len(equal) >= samples
