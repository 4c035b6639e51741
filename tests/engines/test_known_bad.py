"""What a version of TensorRT computes wrongly stays in PyTorch, in that version only."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.fx import Node

import fxtrt
from fxtrt.capture.export import trace
from fxtrt.engines import known_bad
from fxtrt.engines.features import Features
from fxtrt.engines.known_bad import KNOWN_BAD, why_known_bad
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.errors import RegistrationError
from fxtrt.partition.support import support
from fxtrt.registry import registered

pytest.importorskip("torchvision", reason="deform_conv2d is its operator")

aten = torch.ops.aten
X = torch.rand(1, 4, 8, 8)


class OtherVersion(ReferenceBackend):
    """TensorRT of a version that cannot be run here: its features are those of the one that can."""

    name = "tensorrt"

    def __init__(self, version: str) -> None:
        super().__init__()
        table: Any = SimpleNamespace(**vars(self.features.trt))
        table.__version__ = version
        self.features = Features(table, stand_ins=True)


def calls(*functions: Any) -> list[Node]:
    gm = trace(lambda x: [function(x) for function in functions], (X,))
    return [node for node in gm.graph.nodes if node.op == "call_function"]


def sample(x: torch.Tensor) -> torch.Tensor:
    grid = torch.zeros(1, 3, 3, 2)
    sampled: torch.Tensor = aten.grid_sampler_2d(x, grid, 0, 0, False)
    return sampled


def deform(x: torch.Tensor) -> torch.Tensor:
    from torchvision.ops import deform_conv2d

    made: torch.Tensor = deform_conv2d(x, torch.zeros(1, 18, 6, 6), torch.ones(2, 4, 3, 3))
    return made


@pytest.mark.parametrize("function", [sample, deform])
@pytest.mark.parametrize(
    ("version", "is_bad"),
    [
        *[("8.6.1", False), ("10.12.0.36", False), ("10.13.3.9", True), ("10.14.1.48", True)],
        *[("11.0.0", True), ("11.1.0.106", True), ("11.2.1.2", False)],
    ],
)
def test_sampling_stays_out_where_it_is_miscompiled(
    function: Any, version: str, is_bad: bool
) -> None:
    call = next(n for n in calls(function) if "sampler" in n.name or "deform" in n.name)
    rejection = support(call, OtherVersion(version))
    if not is_bad:
        assert rejection is None
        return
    assert rejection is not None
    assert rejection.code == "known_bad"
    assert f"in TensorRT {version} GRID_SAMPLE gives wrong numbers" in rejection.detail
    assert support(call, OtherVersion(version), whitelisted=True) is None


def test_another_engine_and_other_operators_are_not_concerned() -> None:
    (call,) = (node for node in calls(sample) if "sampler" in node.name)
    assert why_known_bad(call, "tensorrt_rtx", "11.0.0") is None
    (relu,) = calls(torch.relu)
    assert support(relu, OtherVersion("11.0.0")) is None


def test_the_table_names_all_operators_whose_converters_use_the_layer() -> None:
    fxtrt.registered()
    users = {
        target
        for target, converter in registered().items()
        if "net.add_grid_sample(" in inspect.getsource(sys.modules[converter.build.__module__])
    }
    (entry,) = (one for one in KNOWN_BAD if one.layer == "GRID_SAMPLE")
    named = {t for t in registered() if str(t).rpartition(".")[0] in entry.operators}
    assert users == named


def test_a_user_adds_what_is_known_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_bad, "KNOWN_BAD", [])
    fxtrt.known_bad(
        "SOFTMAX",
        ["aten._softmax", "aten.softmax"],
        since=(10, 3),
        before=(10, 4),
        reason="forgets a row",
        when=lambda node: node.meta["val"].dtype == torch.float16,
    )
    half, single = (
        next(node for node in calls(function) if "softmax" in node.name)
        for function in (lambda x: x.half().softmax(-1), lambda x: x.softmax(-1))
    )
    rejection = support(half, OtherVersion("10.3.1"))
    assert rejection is not None
    assert rejection.detail.endswith("in TensorRT 10.3.1 forgets a row")
    assert support(single, OtherVersion("10.3.1")) is None
    assert support(half, OtherVersion("10.4.0")) is None


@pytest.mark.parametrize(
    ("operators", "before"), [("aten.relu", (11,)), ([], (11,)), (["aten.relu"], (10,))]
)
def test_an_entry_that_can_never_hold_is_refused(
    operators: Any, before: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_bad, "KNOWN_BAD", [])
    with pytest.raises(RegistrationError, match="known_bad"):
        fxtrt.known_bad("ACTIVATION", operators, since=(10,), before=before, reason="none")
    assert known_bad.KNOWN_BAD == []
