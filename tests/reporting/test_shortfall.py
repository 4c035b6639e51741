"""Where engines do little of the work, one sentence says so and names the reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_rows import CLUSTER, REJECTED

from fxtrt.reporting import Coverage, RejectionRow
from fxtrt.reporting.shortfall import shortfall


def row(code: str, gflops: float, **values: Any) -> RejectionRow:
    return replace(REJECTED, code=code, flops=int(gflops * 1e9), **values)


def coverage(gflops: float, *rows: RejectionRow) -> Coverage:
    return Coverage((replace(CLUSTER, flops=int(gflops * 1e9)),), rows)


def test_the_share_and_the_greatest_reason_come_first() -> None:
    failed = [
        row("build_failed", 80, target="aten.convolution.default", detail="no implementation"),
        row("build_failed", 2),
    ]
    text = shortfall(coverage(10, row("too_small", 8), *failed))
    assert text is not None
    assert text.startswith(
        "engines run 10.0% of 100 GFLOPs; PyTorch runs 82.0% [build_failed], such as "
        "aten.convolution.default in roi_heads: no implementation; 8.0% [too_small], such as "
    )


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (row("too_small", 10),),
        (row("too_small", 4), row("check", 4)),
        (row("blacklist", 500),),
        (row("fuel", 500), row("slower", 500), row("check", 9)),
    ],
)
def test_enough_is_not_worth_a_word(rows: tuple[RejectionRow, ...]) -> None:
    assert shortfall(coverage(91, *rows)) is None


def test_without_flops_there_is_no_share() -> None:
    assert shortfall(Coverage((replace(CLUSTER, flops=0),), (row("check", 0),))) is None
    assert shortfall(Coverage()) is None


def test_a_model_without_engines_has_a_share_of_none() -> None:
    text = shortfall(Coverage((), (row("outside", 5, detail="x" * 999, module=""),)))
    assert text is not None
    assert text.startswith("engines run 0.0% of 5 GFLOPs; PyTorch runs 100.0% [outside]")
    assert " in nms: " in text
    assert len(text) < 400


def test_small_reasons_are_left_out() -> None:
    many = [row(f"code{i}", 10 + i) for i in range(5)]
    text = shortfall(coverage(1, *many, row("tiny", 0.1)))
    assert text is not None
    assert [f"code{i}" in text for i in range(5)] == [False, False, True, True, True]
    text = shortfall(coverage(1, row("check", 50), row("tiny", 0.1)))
    assert text is not None
    assert "tiny" not in text
