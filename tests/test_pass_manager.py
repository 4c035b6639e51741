"""Passes run in order; each leaves a whole graph or is named as the one that did not."""

from __future__ import annotations

import logging

import pytest
import torch
import torchvision
from passcheck import targets, weights
from torch import nn
from torch.fx import GraphModule

from fxtrt.capture.export import capture_module, trace
from fxtrt.errors import PassError
from fxtrt.graph.metadata import infer, known_equal
from fxtrt.graph.weights import add_weight
from fxtrt.pass_manager import run_passes
from fxtrt.passes import DEFAULT_PASSES

aten = torch.ops.aten


def keep(gm: GraphModule) -> bool:
    return False


def negate(gm: GraphModule) -> bool:
    (relu,) = gm.graph.find_nodes(op="call_function", target=aten.relu.default)
    with gm.graph.inserting_after(relu):
        node = gm.graph.call_function(aten.neg.default, (relu.args[0],))
    infer(node, relu)
    relu.replace_all_uses_with(node)
    return True


def forget_value(gm: GraphModule) -> bool:
    negate(gm)
    (node,) = gm.graph.find_nodes(op="call_function", target=aten.neg.default)
    del node.meta["val"]
    return True


def misplace(gm: GraphModule) -> bool:
    (relu,) = gm.graph.find_nodes(op="call_function", target=aten.relu.default)
    gm.graph.find_nodes(op="placeholder")[0].prepend(relu)
    return True


def fail(gm: GraphModule) -> bool:
    raise KeyError("no such thing")


def graph() -> GraphModule:
    return trace(lambda x, y: x.relu(), (torch.randn(3), torch.randn(3)))


def test_each_pass_is_timed_and_the_graph_is_whole(caplog: pytest.LogCaptureFixture) -> None:
    gm = graph()
    with caplog.at_level(logging.DEBUG, logger="fxtrt.pass_manager"):
        timings = run_passes(gm, (keep, negate))
    assert [(t.name, t.changed) for t in timings] == [("keep", False), ("negate", True)]
    assert all(t.seconds >= 0 for t in timings)
    assert "keep" in caplog.text
    assert targets(gm) == ["neg.default"]
    assert len(gm.graph.find_nodes(op="placeholder")) == 2
    x = torch.randn(3)
    torch.testing.assert_close(gm(x, x), (-x,))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (fail, "KeyError: 'no such thing'"),
        (forget_value, 'neg_default .* has no meta\\["val"\\]'),
        (misplace, "RuntimeError"),
    ],
)
def test_a_failure_names_its_pass_and_those_before(broken: object, message: str) -> None:
    with pytest.raises(PassError, match=message) as raised:
        run_passes(graph(), (keep, broken))  # type: ignore[arg-type]  # each is a pass
    assert broken.__name__ in str(raised.value)  # type: ignore[attr-defined]  # a function
    assert "passes before it: keep" in str(raised.value)
    assert raised.value.__cause__ is not None


def test_infer_and_add_weight_give_nodes_their_meta() -> None:
    gm = trace(lambda x: x.relu(), (torch.randn(2, 3),), dynamic=True)
    (relu,) = gm.graph.find_nodes(op="call_function", target=aten.relu.default)
    relu.meta["stack_trace"] = "somewhere"
    with gm.graph.inserting_after(relu):
        constant = add_weight(gm, torch.ones(3), "constant")
        again = add_weight(gm, torch.ones(3), "constant")
    with gm.graph.inserting_after(constant):
        node = gm.graph.call_function(aten.mul.Tensor, (relu, constant))
    infer(node, relu)
    assert (constant.target, again.target) == ("constant", "constant_1")
    assert known_equal(node.meta["val"].shape[0], relu.meta["val"].shape[0])
    assert not known_equal(node.meta["val"].shape[0], 2)
    assert node.meta["val"].fake_mode is constant.meta["val"].fake_mode
    assert node.meta["stack_trace"] == "somewhere"


def test_resnet18_becomes_convolutions() -> None:
    model = torchvision.models.resnet18().eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -1, 1, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -1, 1, generator=generator)
    x = torch.randn(2, 3, 64, 64, generator=generator)
    gm = capture_module(model, (x,))
    timings = run_passes(gm)
    assert [timing.name for timing in timings] == [run.__name__ for run in DEFAULT_PASSES]
    assert sum("conv" in target for target in targets(gm)) == 20
    assert not any("norm" in target for target in targets(gm))
    assert len(weights(gm)) == 42
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(gm(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
    assert not any(timing.changed for timing in run_passes(gm))
