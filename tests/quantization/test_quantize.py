"""What is quantized, what shares scales, what stays float16, and that the numbers are right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from int8_models import Joined, captured_of, data, residual, settings_of
from torch.fx import GraphModule, Interpreter, Node

import fxtrt
from fxtrt.builder.casts import with_precision
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.graph.fake_quantize import PER_CHANNEL, PER_TENSOR
from fxtrt.graph.provenance import module_path
from fxtrt.quantization.calibration import calibrate
from fxtrt.quantization.quantize import Quantized, quantize
from fxtrt.quantization.value_keys import scale_keys

pytestmark = pytest.mark.usefixtures("no_grad")

aten = torch.ops.aten


def quantized_of(
    model: torch.nn.Module, backend: EngineBackend, **overrides: Any
) -> tuple[GraphModule, Quantized]:
    """The quantized graph of a model, with scales of its own calibration."""
    settings = settings_of(**overrides)
    captured = captured_of(model, settings)
    table = calibrate(captured, data(), settings)
    graph = captured.parts[0].graph
    return graph, quantize(graph, Target(backend, settings), table)


def modules(nodes: Any) -> list[str]:
    return [module_path(node) for node in nodes]


def quantizer_of(node: Node, position: int = 0) -> Node:
    source = node.all_input_nodes[position]
    assert source.target == PER_TENSOR, f"{node} reads {source} as it is"
    return source


def scale_of(node: Node, position: int = 0) -> Any:
    return quantizer_of(node, position).args[1]


def call(graph: GraphModule, module: str, target: Any = aten.convolution.default) -> Node:
    found = graph.graph.find_nodes(op="call_function", target=target)
    (node,) = [node for node in found if module_path(node) == module]
    assert isinstance(node, Node)
    return node


def test_stem_and_last_layer_stay_float16(reference: EngineBackend) -> None:
    _, quantized = quantized_of(residual(), reference)
    expected = ["first", "second", "wide", "skip", "hidden"]
    assert modules(quantized.products) == expected
    assert list(quantized.kept.values()) == [
        "it is the first convolution",
        "it is among the last: its result reaches the output",
    ]


def test_user_can_change_what_stays_float16(reference: EngineBackend) -> None:
    _, quantized = quantized_of(
        residual(), reference, keep_fp16=("second", "aten.linear"), quantize=("stem",)
    )
    assert modules(quantized.products) == ["stem", "first", "wide", "skip"]
    assert "'second' is in keep_fp16" in quantized.kept.values()
    with pytest.raises(fxtrt.errors.SettingsError, match="'secnd' matches no node"):
        quantized_of(residual(), reference, keep_fp16=("secnd",))


def test_weights_are_quantized_per_channel(reference: EngineBackend) -> None:
    model = residual()
    graph, _ = quantized_of(model, reference)
    wide = call(graph, "wide")
    quantizer = wide.args[1]
    assert isinstance(quantizer, Node)
    assert quantizer.target == PER_CHANNEL
    assert quantizer.args[2] == 0
    scale = getattr(graph, str(quantizer.args[1]))
    largest = model.wide.weight.abs().amax((1, 2, 3))
    torch.testing.assert_close(scale * 127, largest, rtol=1e-3, atol=0)
    assert (scale * 127 >= largest).all()
    assert torch.equal(scale, scale.half().float())


def test_residual_sum_quantizes_the_other_operand(reference: EngineBackend) -> None:
    graph, _ = quantized_of(residual(), reference)
    plain, projected = graph.graph.find_nodes(op="call_function", target=aten.add.Tensor)
    product, skip = plain.all_input_nodes
    assert module_path(product) == "second"
    # The skip connection and the first convolution of the block read one quantized value.
    assert skip is quantizer_of(call(graph, "first"))
    # The later one of two products adds, so that the other one is quantized.
    assert projected.all_input_nodes[0].target == PER_TENSOR
    assert module_path(projected.all_input_nodes[0].all_input_nodes[0]) == "wide"
    assert module_path(projected.all_input_nodes[1]) == "skip"


def test_activation_is_quantized_after_it_and_not_before(reference: EngineBackend) -> None:
    graph, _ = quantized_of(residual(), reference)
    for node in graph.graph.find_nodes(op="call_function", target=aten.relu.default):
        assert node.all_input_nodes[0].target != PER_TENSOR


def test_max_pool_shares_the_scale_of_its_input(reference: EngineBackend) -> None:
    graph, _ = quantized_of(residual(), reference)
    (pool,) = graph.graph.find_nodes(op="call_function", target=aten.max_pool2d.default)
    assert scale_of(pool) == scale_of(call(graph, "first"))


def test_pool_that_something_reads_in_float16_is_not_quantized(reference: EngineBackend) -> None:
    graph, _ = quantized_of(residual(), reference, keep_fp16=("first",))
    (pool,) = graph.graph.find_nodes(op="call_function", target=aten.max_pool2d.default)
    assert pool.all_input_nodes[0].target == aten.relu.default


def test_concatenation_has_one_scale(reference: EngineBackend) -> None:
    torch.manual_seed(0)
    settings = settings_of()
    captured = captured_of(Joined().eval(), settings)
    table, graph = calibrate(captured, data(), settings), captured.parts[0].graph
    keys = scale_keys(graph)
    (cat,) = graph.graph.find_nodes(op="call_function", target=aten.cat.default)
    alone = [table.scales[keys[node]] for node in cat.all_input_nodes]
    assert alone[1] > 1.5 * alone[0]
    quantize(graph, Target(reference, settings), table)
    (cat,) = graph.graph.find_nodes(op="call_function", target=aten.cat.default)
    reader = call(graph, "both.0")
    scales = {scale_of(cat, 0), scale_of(cat, 1), scale_of(reader)}
    assert len(scales) == 1
    # It is the larger one, so that neither branch is clamped.
    (scale,) = scales
    assert scale >= alone[1]


def test_compiled_model_equals_the_quantized_graph(reference: EngineBackend) -> None:
    model, examples = residual(), data()
    graph, quantized = quantized_of(model, reference)
    compiled = fxtrt.compile(
        model, examples[0], settings=settings_of(), calibration=examples, min_cluster_size=1
    )
    actual = compiled(*examples[0])
    # With the casts of the engine, the numbers are those of the engine.
    cast, _ = with_precision(graph, settings_of())
    (expected,) = Interpreter(cast).run(*examples[0], enable_io_processing=False)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
    # In float32 all through, rounding to float16 moves a few values to the next step.
    (simulated,) = Interpreter(graph).run(*examples[0], enable_io_processing=False)
    assert relative(actual, simulated) < 0.01
    assert relative(actual, model(*examples[0])) < 0.03
    coverage = fxtrt.report(compiled)
    assert coverage.int8 == len(quantized.products) == 5
    assert "(5 in int8)" in str(coverage)
    assert "it is the first convolution" in str(coverage)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def test_component_alone_in_int8(reference: EngineBackend) -> None:
    torch.manual_seed(0)
    model, examples = Joined().eval(), data()
    options: Any = {"precision": "model", "components": {"both": {"precision": "int8"}}}
    _, quantized = quantized_of(model, reference, **options)
    assert modules(quantized.products) == ["both.0", "both.2"]
    assert not quantized.kept
    compiled = fxtrt.compile(
        model,
        examples[0],
        settings=settings_of(**options, min_cluster_size=1),
        calibration=examples,
    )
    error = relative(compiled(*examples[0]), model(*examples[0]))
    assert 1e-4 < error < 0.03


def test_what_runs_in_pytorch_is_not_quantized(reference: EngineBackend) -> None:
    graph, quantized = quantized_of(residual(), reference, blacklist=("wide",))
    assert "wide" not in modules(quantized.products)
    assert call(graph, "wide").all_input_nodes[0].target == aten.relu.default


def test_transposed_and_computed_weights_are_kept_with_the_reason(
    reference: EngineBackend,
) -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up = torch.nn.Conv2d(3, 8, 1), torch.nn.ConvTranspose2d(8, 8, 2)
            self.last = torch.nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.up(self.stem(x))
            y = torch.nn.functional.conv2d(y, self.last.weight * x.mean())
            return self.last(y)

    _, quantized = quantized_of(Odd().eval(), reference)
    assert not quantized.products
    reasons = set(quantized.kept.values())
    assert {"it is a transposed convolution", "its weight is computed"} < reasons


def test_without_examples_the_error_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(fxtrt.errors.SettingsError, match=r"calibration=\[") as caught:
        fxtrt.compile(residual(), data(1)[0], settings=settings_of(cache_dir=tmp_path))
    assert "calibration_table" in str(caught.value)
    with pytest.raises(fxtrt.errors.SettingsError, match="calibration is for precision='int8'"):
        fxtrt.compile(
            residual(),
            data(1)[0],
            settings=replace(settings_of(), precision="fp16"),
            calibration=data(),
        )


def test_report_before_compiling_needs_no_examples() -> None:
    coverage = fxtrt.report(
        residual(), data(1)[0], engine="reference", precision="int8", cache_dir=None
    )
    assert coverage.int8 == 5
    assert fxtrt.Coverage.from_json(coverage.to_json()) == coverage


def test_plan_builds_in_tensorrt_rtx(int8_rtx: Any) -> None:
    compiled = fxtrt.compile(
        residual(),
        data(1)[0],
        engine="tensorrt_rtx",
        precision="int8",
        calibration=data(),
        cache_dir=None,
        on_build_failure="raise",
    )
    (row,) = fxtrt.report(compiled).clusters
    assert row.build is not None
    assert row.build.plan_bytes
