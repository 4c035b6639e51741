"""Where engines do little of the work, one sentence says so and names the reasons."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from report_rows import CLUSTER, REJECTED, Model, X
from torch import nn

import fxtrt
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


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "engines run" in r.getMessage()]


@pytest.mark.parametrize(("minimum", "count"), [(3, 0), (5, 1)])
def test_compiling_warns_once(minimum: int, count: int, caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"engine": "reference", "min_cluster_size": minimum}
    with caplog.at_level(logging.WARNING, "fxtrt"):
        fxtrt.compile(Model().eval(), (X,), **options)
        assert len(warnings(caplog)) == count
        assert all(text.startswith("engines run 0.0% of ") for text in warnings(caplog))
        assert all("100.0% [too_small], such as aten.linear" in text for text in warnings(caplog))
        caplog.clear()
        torch._dynamo.reset()
        through_dynamo = torch.compile(Model().eval(), backend="fxtrt", options=options)
        with torch.no_grad():
            through_dynamo(X)
            through_dynamo(X)
    texts = [text for text in warnings(caplog) if text.startswith("of a graph of torch.compile: ")]
    assert len(texts) == len(warnings(caplog)) == count


def test_a_model_without_flops_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fxtrt"):
        fxtrt.compile(nn.ReLU().eval(), (X,), engine="reference")
    assert warnings(caplog) == []
