"""Tensors cross a boundary in their readers' dtype and layout, and no number changes by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import replace_converter
from levels import RECEIVED, Levels, pool_levels, score_levels
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule

import fxtrt
from fxtrt.builder.casts import with_precision
from fxtrt.cache.engine_key import EngineKey
from fxtrt.capture.export import capture_module, trace
from fxtrt.diagnostics.bisect import first_difference
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.reference import ReferenceEngine
from fxtrt.engines.target import Target
from fxtrt.graph.formats import FORM
from fxtrt.graph.metadata import fake_result
from fxtrt.lowering.divide import divide
from fxtrt.lowering.forms import extract_all
from fxtrt.lowering.lower import lower
from fxtrt.lowering.outcome import outcome_of
from fxtrt.lowering.settle import settle
from fxtrt.lowering.stitch import stitch
from fxtrt.partition.extract import Extracted
from fxtrt.runtime.engine_module import EngineModule
from fxtrt.runtime.timing import Timing
from fxtrt.settings import Settings

aten = torch.ops.aten
X = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.tensor([1.0, 0.5])
OPTIONS: dict[str, Any] = {
    "engine": "reference",
    "precision": "fp16",
    "cache_dir": None,
    "min_cluster_size": 1,
}
HALF, LAST = "float16", "float16 channels-last"


@pytest.fixture(autouse=True)
def nothing_received() -> None:
    RECEIVED.clear()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """All that engines give during a test."""
    found: list[Tensor] = []
    run = ReferenceEngine.run

    def watched(self: ReferenceEngine, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        results = run(self, tensors)
        found.extend(results)
        return results

    monkeypatch.setattr(ReferenceEngine, "run", watched)
    return found


def through_export(model: nn.Module, **options: Any) -> Callable[[Tensor], Any]:
    sizes = ({2: Dim("h", min=2, max=64) * 4, 3: Dim("w", min=2, max=64) * 4},)
    return fxtrt.compile(model, (X,), dynamic_shapes=sizes, **OPTIONS, **options)


def through_dynamo(model: nn.Module, **options: Any) -> Callable[[Tensor], Any]:
    compiled: Callable[[Tensor], Any] = torch.compile(
        model, backend="fxtrt", options={**OPTIONS, **options}
    )
    return compiled


@pytest.mark.parametrize("way", [through_export, through_dynamo])
def test_an_operator_reads_the_memory_that_the_engine_wrote(
    way: Callable[[nn.Module], Callable[[Tensor], Any]], given: list[Tensor]
) -> None:
    model = Levels().eval()
    with torch.no_grad():
        fast = way(model)
        for x in (X, X[..., :24, :40]):
            expected = model(x)
            given.clear()
            RECEIVED.clear()
            torch.testing.assert_close(fast(x), expected, atol=2e-3, rtol=0)
            (features,) = RECEIVED
            for feature in features:
                assert feature.dtype == torch.float16
                assert feature.is_contiguous(memory_format=torch.channels_last)
                assert any(feature.data_ptr() == one.data_ptr() for one in given)


def test_no_cast_is_left_at_the_boundary() -> None:
    fast = fxtrt.compile(Levels().eval(), (X,), **OPTIONS)
    outcome = outcome_of(fast)
    assert outcome is not None
    graph = outcome.captured.parts[0].graph
    assert not graph.graph.find_nodes(op="call_function", target=aten._to_copy.default)
    (pooled,) = graph.graph.find_nodes(
        op="call_function", target=torch.ops.fxtrt_test.pool_levels.default
    )
    assert pooled.meta["val"].dtype == torch.float16
    assert {source.meta["val"].dtype for source in pooled.args[0]} == {torch.float16}
    first, second = fxtrt.report(fast).clusters
    assert first.inputs == ("x: float32",)
    assert [row.partition(": ")[2] for row in first.outputs] == [LAST, LAST]
    assert second.inputs == ("pool_levels: float16",)
    assert second.outputs == ("softmax: float32",)
    assert first.bytes_out == 2 * 16 * 2 * (16 * 24 + 8 * 12)


def extracted(function: Any, *inputs: Tensor, **options: Any) -> list[Extracted]:
    settings = Settings(**{**OPTIONS, **options})
    gm = trace(function, inputs)
    return extract_all(gm, divide(gm, Target.of(settings)).clusters)


def given_forms(clusters: Sequence[Extracted]) -> list[str]:
    """The forms of what the first cluster gives."""
    return list(map(str, clusters[0].forms[len(clusters[0].taken) :]))


def test_what_enters_as_half_stays_half_up_to_the_first_product() -> None:
    model = Levels().eval()
    _, head = extracted(model, X)
    settled, _ = with_precision(head.module, Settings(precision="fp16"))
    narrow = [node.name for node in settled.graph.nodes if is_half(node.meta.get("val"))]
    assert "pool_levels" in narrow
    wide = [node for node in settled.graph.nodes if is_wide_cast(node)]
    assert len(wide) == 1, "only the softmax computes in float32"
    (reader,) = wide[0].users
    assert reader.target == aten.softmax.int


def is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float16


def is_wide_cast(node: Any) -> bool:
    return node.target == aten._to_copy.default and not is_half(node.meta["val"])


def convolutions(channels: int = 16) -> tuple[Callable[[Tensor], Tensor], ...]:
    generator = torch.Generator().manual_seed(2)
    one = torch.randn(channels, 3, 3, 3, generator=generator) / 5
    two = torch.randn(channels, channels, 3, 3, generator=generator) / 12
    return lambda x: F.conv2d(x, one, padding=1), lambda x: F.conv2d(x, two, padding=1)


FIRST, SECOND = convolutions()


def also_read_in_pytorch(x: Tensor) -> Any:
    y = FIRST(x)
    return pool_levels([y], WEIGHTS[:1]), torch.erfinv(y)


def returned(x: Tensor) -> Any:
    y = FIRST(x)
    return pool_levels([y], WEIGHTS[:1]), y


def computed_in_float32(x: Tensor) -> Any:
    return pool_levels([FIRST(x).softmax(1)], WEIGHTS[:1])


def next_to_a_float32(x: Tensor) -> Any:
    y = FIRST(x)
    return pool_levels([y, SECOND(y).sigmoid().softmax(1)], WEIGHTS)


@pytest.mark.parametrize(
    "function", [also_read_in_pytorch, returned, computed_in_float32, next_to_a_float32]
)
def test_one_reader_that_takes_float32_only_keeps_float32(function: Any) -> None:
    forms = given_forms(extracted(function, X))
    assert forms
    assert set(forms) == {"float32"}


def test_arguments_of_an_operator_choose_apart() -> None:
    def function(x: Tensor) -> Any:
        y = FIRST(x)
        return score_levels([y], [SECOND(y).softmax(1)])

    assert sorted(given_forms(extracted(function, X))) == [LAST, "float32"]


@pytest.mark.parametrize(
    ("options", "forms"),
    [
        ({}, [LAST, LAST]),
        ({"keep_fp32": ("convolution_2",)}, ["float32", "float32"]),
        ({"precision": "bf16"}, ["float32", "float32"]),
        ({"precision": "fp32"}, ["float32", "float32"]),
        ({"precision": "tf32"}, ["float32", "float32"]),
        ({"precision": "model"}, ["float32", "float32"]),
    ],
)
def test_only_float16_changes_what_crosses(options: dict[str, Any], forms: list[str]) -> None:
    assert given_forms(extracted(Levels().eval(), X, **options)) == forms


def test_channels_that_tensorrt_would_pad_stay_contiguous() -> None:
    assert given_forms(extracted(Levels(12).eval(), X)) == [HALF, HALF]


def test_a_weight_out_of_range_keeps_float32() -> None:
    model = Levels().eval()
    with torch.no_grad():
        model.body.second.weight[0, 0, 0, 0] = 1e6
    assert given_forms(extracted(model, X)) == ["float32", "float32"]


def test_a_model_in_half_gives_channels_last_without_a_cast() -> None:
    model, x = Levels().eval().half(), X.half()
    clusters = extracted(model, x, precision="model")
    assert given_forms(clusters) == [LAST, LAST]
    casts = clusters[0].module.graph.find_nodes(op="call_function", target=aten._to_copy.default)
    assert {cast.args[0].meta["val"].dtype for cast in casts} == {torch.float16}


class Chain(nn.Module):
    """Two parts, each of which has engines of its own."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x))
        return result


def lowered(model: nn.Module, **options: Any) -> tuple[GraphModule, list[EngineModule]]:
    settings = Settings(**{**OPTIONS, **options})
    graph = lower(capture_module(model.eval(), (X,)), Target.of(settings)).graph
    return graph, [module for module in graph.children() if isinstance(module, EngineModule)]


CONVOLUTION = nn.Conv2d(16, 8, 3).eval()
LINEAR = nn.Sequential(nn.Flatten(2), nn.Linear(32 * 48, 4)).eval()


@pytest.mark.parametrize(
    ("second", "precisions", "gives", "takes"),
    [
        (CONVOLUTION, ("fp16", "fp16"), LAST, LAST),
        (LINEAR, ("fp16", "fp16"), HALF, HALF),
        (CONVOLUTION, ("fp16", "fp32"), "float32", "float32"),
        (CONVOLUTION, ("fp32", "fp16"), "float32", "float32"),
        (CONVOLUTION, ("bf16", "bf16"), "bfloat16", "bfloat16"),
        (CONVOLUTION, ("bf16", "fp16"), "float32", "float32"),
    ],
)
def test_engines_of_one_precision_pass_it_on(
    second: nn.Module, precisions: tuple[str, str], gives: str, takes: str
) -> None:
    model = Chain(second).eval()
    parts = {"first": {"precision": precisions[0]}, "second": {"precision": precisions[1]}}
    fast = fxtrt.compile(model, (X,), **OPTIONS, components=parts)
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X), atol=2e-2, rtol=2e-2)
    before, after = fxtrt.report(fast).clusters
    assert before.outputs == (f"convolution: {gives}",)
    assert after.inputs == (f"convolution: {takes}",)


def test_an_engine_that_cannot_run_leaves_the_same_forms_to_pytorch() -> None:
    graph, (body, head) = lowered(Levels())
    with torch.no_grad():
        features = body(X)
        for module, values in ((body, [X]), (head, [pool_levels(list(features), WEIGHTS)])):
            by_engine, by_pytorch = module(*values), module.fallback(*values)
            assert not module.fallbacks
            for a, b in zip(by_engine, by_pytorch, strict=True):
                assert (a.dtype, a.stride()) == (b.dtype, b.stride())
                torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
        expected = graph(X)
        body.engine = head.engine = None
        torch.testing.assert_close(graph(X), expected, atol=2e-3, rtol=0)
    assert body.fallbacks
    assert head.fallbacks


@pytest.mark.parametrize(
    ("target", "clusters"), [(aten.convolution.default, 1), (aten.softmax.int, 2)]
)
def test_nodes_that_do_not_build_are_cast_for(
    target: Any, clusters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cluster is left of the convolutions; of the head, all but the softmax."""

    def broken(ctx: Any, x: Any) -> Any:
        raise ValueError("not today")

    replace_converter(monkeypatch, target, broken)
    model = Levels().eval()
    fast = fxtrt.compile(model, (X,), **OPTIONS)
    assert len(fxtrt.report(fast).clusters) == clusters
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X), atol=2e-3, rtol=0)


class Apart(nn.Module):
    """Two producers and one reader, each of which can be an engine of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(pool_levels([self.one(x), self.two(x)], WEIGHTS))
        return result


@pytest.mark.parametrize("built", list(itertools.product([True, False], repeat=3)))
def test_any_of_the_clusters_may_be_missing(built: tuple[bool, ...]) -> None:
    model = Apart().eval()
    gm = capture_module(model, (X,))
    parts: dict[str, Any] = {"one": {}, "two": {}, "head": {}}
    target = Target.of(Settings(**OPTIONS, components=parts))
    clusters = extract_all(gm, divide(gm, target).clusters)
    assert len(clusters) == 3
    kept = [one for one, wanted in zip(clusters, built, strict=True) if wanted]
    stitch(gm, kept, [one.module for one in kept])
    with torch.no_grad():
        expected = model(X)
        RECEIVED.clear()
        torch.testing.assert_close(gm(X), expected, atol=2e-3, rtol=2e-3)
    (features,) = RECEIVED
    half = all(built[i] for i, one in enumerate(clusters) if one.cluster.name != "cluster_2")
    assert {feature.dtype for feature in features} == {torch.half if half else torch.float}
    for node in gm.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            assert fake_result(node, lambda n: n.meta["val"]).dtype == node.meta["val"].dtype


def test_engines_are_timed_with_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Any] = []

    def measure(module: EngineModule, inputs: Sequence[Any]) -> Timing:
        timed.append([value.dtype for value in inputs])
        module(*inputs)
        assert not module.fallbacks
        return Timing(1, 2)

    monkeypatch.setattr("fxtrt.lowering.settle.measure", measure)
    gm = capture_module(Levels().eval(), (X,))
    settings = Settings(**OPTIONS, partition="measured")
    assert len(settle(gm, Target.of(settings), [X]).built) == 2
    assert timed == [[torch.float32], [torch.float16]]


def test_a_fault_behind_a_boundary_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target.of(Settings(**{**OPTIONS, "precision": "model"}))

    def culprit() -> Any:
        gm = capture_module(Levels().eval().half(), (X.half(),))
        return first_difference(gm, [X.half()], target)

    assert culprit() is None
    replace_converter(monkeypatch, aten.relu.default, lambda ctx, x: ctx.unary("NEG", x))
    assert culprit().node.target == aten.relu.default


def test_a_cluster_with_another_boundary_has_another_key(reference: EngineBackend) -> None:
    def alone(x: Tensor) -> Any:
        return pool_levels([SECOND(FIRST(x))], WEIGHTS[:1])

    def shared(x: Tensor) -> Any:
        y = SECOND(FIRST(x))
        return pool_levels([y], WEIGHTS[:1]), torch.erfinv(y)

    target = Target(reference, Settings(**OPTIONS))
    keys = {EngineKey.of(extracted(function, X)[0].module, target) for function in (alone, shared)}
    assert len(keys) == 2
    again = EngineKey.of(extracted(alone, X)[0].module, target)
    assert again in keys
    one = extracted(Levels().eval(), X)[1].module
    marked = EngineKey.of(one, target)
    for node in one.graph.find_nodes(op="placeholder"):
        del node.meta[FORM]
    assert EngineKey.of(one, target) != marked, "the casts of its input would not be the same"
