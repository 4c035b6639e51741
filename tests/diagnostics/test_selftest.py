"""The selftest tells operators that are right from those that are wrong, and writes it down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from graphs import replace_converter

from fxtrt.diagnostics import selftest as module
from fxtrt.diagnostics.operator_rows import FAMILIES, ROWS_OF
from fxtrt.diagnostics.row_module import FamilyModule
from fxtrt.diagnostics.selftest import SelfTest, selftest
from fxtrt.settings import Settings

aten = torch.ops.aten
TARGETS = {str(row.target) for name in ("clamp", "power") for row in FAMILIES[name]}
SETTINGS = Settings(engine="reference", cache_dir=None)


@pytest.fixture(autouse=True)
def _only_two_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAMILIES", {name: FAMILIES[name] for name in ("clamp", "power")})
    monkeypatch.setattr(module, "_detector", lambda settings, device: None)


def outcomes(record: SelfTest) -> dict[str, str]:
    return {one.operator: one.outcome for one in record.operators}


def test_every_operator_has_a_result() -> None:
    record = selftest(SETTINGS)
    assert outcomes(record) == dict.fromkeys(TARGETS, "right")
    assert record.passed
    assert "Nothing is wrong." in str(record)
    assert "No detector was tried" in str(record)


def test_a_wrong_converter_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def ceiling(ctx: Any, x: Any, min: Any = None, max: Any = None) -> Any:
        return ctx.net.add_unary(x, ctx.trt.UnaryOperation.CEIL).get_output(0)

    replace_converter(monkeypatch, aten.clamp.default, ceiling)
    record = selftest(SETTINGS)
    wrong = [name for name, outcome in outcomes(record).items() if outcome != "right"]
    assert wrong == ["aten.clamp.default"]
    assert not record.passed
    assert "aten.clamp.default: wrong: Tensor-likes are not close" in str(record)


def test_a_converter_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(ctx: Any, x: Any, min: Any = None, max: Any = None) -> Any:
        raise ValueError("broken on purpose")

    replace_converter(monkeypatch, aten.clamp.default, fails)
    record = selftest(SETTINGS)
    failed = {one.operator: one for one in record.operators if one.outcome != "right"}
    assert list(failed) == ["aten.clamp.default"]
    assert failed["aten.clamp.default"].outcome == "not built"
    assert "broken on purpose" in failed["aten.clamp.default"].detail


def test_without_a_gpu_plans_are_built_only() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    record = selftest(Settings(engine="tensorrt_rtx", cache_dir=None))
    assert set(outcomes(record).values()) == {"built, not run"}


def test_the_command_writes_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    assert run(monkeypatch, "selftest", "--engine", "reference", "--json", str(file)) == 0
    record = json.loads(file.read_text())
    assert record["passed"] is True
    assert record["environment"]["torch"] == torch.__version__
    assert {one["operator"] for one in record["operators"]} == TARGETS


def test_the_module_of_a_family_calls_each_operator_as_its_row_does() -> None:
    rows = [ROWS_OF[aten.clamp.default][0], ROWS_OF[aten.pow.Tensor_Scalar][0]]
    model = FamilyModule(rows, torch.device("cpu"))
    results = model(*model.inputs)
    clamped = aten.clamp.default(model.inputs[0], *rows[0].args[1:], **rows[0].kwargs)
    assert torch.equal(results["aten_clamp_default"], clamped)
    raised = model.inputs[1] ** rows[1].args[1]
    assert torch.equal(results["aten_pow_Tensor_Scalar"], raised)
