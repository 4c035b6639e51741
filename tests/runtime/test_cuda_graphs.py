"""Graphs are recorded per slot and shape, replay into fresh memory, and say what they leave out.

There is no GPU here: a graph that "replays" runs its function again, into the memory that it had.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import resources
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import torch
from gpu_model import FakeGpu
from levels import RECEIVED, Levels
from torch.fx import Node

import fxtrt
from fxtrt.capture.export import trace
from fxtrt.engines.reference import ReferenceEngine
from fxtrt.engines.target import Target
from fxtrt.errors import FxtrtError
from fxtrt.lowering.lower import lower
from fxtrt.reporting import RuntimeRow
from fxtrt.runtime import cuda_graphs
from fxtrt.runtime.engine_module import EngineModule
from fxtrt.runtime.guarded_forward import GuardedForward
from fxtrt.runtime.stitched_call import serve
from fxtrt.settings import Settings

SETTINGS = Settings(engine="reference", min_cluster_size=1, cuda_graphs=True, cache_dir=None)


class Recorder:
    """Takes the place of CUDA's recording."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graphs = 0
        self.replays = 0
        self.broken = False
        self.pools: list[Any] = []
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 << 20)
        monkeypatch.setattr(cuda_graphs, "_capture", self.capture)

    def capture(
        self, function: Callable[..., Sequence[Any]], inputs: Sequence[Any], pool: Any
    ) -> tuple[Any, list[Any]]:
        self.pools.append(pool)
        if self.broken:
            self.broken = False
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        self.graphs += 1
        outputs = list(function(*inputs))

        def replay() -> None:
            self.replays += 1
            for output, value in zip(outputs, function(*inputs), strict=True):
                output.copy_(value)

        return SimpleNamespace(replay=replay), outputs


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    FakeGpu(monkeypatch)
    monkeypatch.setattr(ReferenceEngine, "device", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    return Recorder(monkeypatch)


class Whole(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.relu(x * 2 + 1)
        return {"a": y, "b": torch.special.bessel_j0(y).sigmoid(), "again": y}


class Split(torch.nn.Module):
    """The number of rows in the middle depends on data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.relu(x * 2 - 1)
        found = torch.nonzero(rows[:, 0]).squeeze(1)
        return torch.relu(rows[found] * 3 - 1)


def compile(model: torch.nn.Module, **options: Any) -> torch.nn.Module:
    rows = torch.export.Dim("rows", min=2, max=64)
    return fxtrt.compile(
        model.eval(),
        (torch.randn(8, 3),),
        engine="reference",
        cuda_graphs=True,
        dynamic_shapes=({0: rows},),
        min_cluster_size=1,
        **options,
    )


def runtime(compiled: torch.nn.Module) -> RuntimeRow:
    (row,) = fxtrt.report(compiled).runtime
    return row


def test_the_graphs_of_a_slot_share_memory_and_are_counted(recorder: Recorder) -> None:
    compiled = compile(Whole(), slots=1)
    with torch.no_grad():
        for rows in (4, 5) * 2:
            compiled(torch.randn(rows, 3))
    assert recorder.graphs == 2
    assert recorder.pools[0] is recorder.pools[1]
    row = runtime(compiled)
    assert row.graph_bytes == (4 + 5) * 3 * 4
    assert "2 CUDA graphs recorded, in 0.1 KiB" in str(fxtrt.report(compiled))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_whole_model_is_recorded_at_the_second_call_of_a_shape(
    mode: Any, recorder: Recorder
) -> None:
    model = Whole()
    compiled = compile(model)
    held: list[tuple[Any, Any]] = []
    with mode():
        for rows in (4, 4, 7, 4, 7, 7, 4):
            x = torch.randn(rows, 3)
            held.append((compiled(x), model(x)))
    assert (recorder.graphs, recorder.replays) == (2, 5)
    for actual, expected in held:
        torch.testing.assert_close(actual, expected)
    assert runtime(compiled).recorded == 2
    assert runtime(compiled).unrecorded == ()
    with torch.no_grad():
        x = torch.randn(4, 3)
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("settled", [True, False], ids=["whole", "engines"])
def test_a_replay_passes_halves_and_layouts_on(recorder: Recorder, settled: bool) -> None:
    class Watched(Levels):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = super().forward(x)
            # A size that depends on data keeps the whole from being one graph.
            return scores if settled else scores[torch.nonzero(scores[:, 0] > -1).squeeze(1)]

    model = Watched().eval()
    options: dict[str, Any] = {"precision": "fp16", "cuda_graphs": True, "min_cluster_size": 1}
    compiled = fxtrt.compile(model, (torch.rand(2, 3, 32, 48),), engine="reference", **options)
    with torch.no_grad():
        for _ in range(4):
            x = torch.rand(2, 3, 32, 48)
            torch.testing.assert_close(compiled(x), model(x), atol=2e-3, rtol=0)
            RECEIVED.clear()
            compiled(x)
            for feature in RECEIVED[0]:
                assert feature.dtype == torch.float16
                assert feature.is_contiguous(memory_format=torch.channels_last)
    assert recorder.graphs == (1 if settled else 2)
    assert bool(runtime(compiled).unrecorded) == (not settled)


def test_an_observer_sees_each_node_instead_of_a_replay(recorder: Recorder) -> None:
    x = torch.randn(2, 4)
    graph = lower(
        trace(lambda x: torch.erfinv(torch.tanh(x) * 0.5), (x,)), Target.of(SETTINGS)
    ).graph
    (call,) = serve([graph], SETTINGS)
    with torch.no_grad():
        expected = [call(x) for _ in range(3)][-1]
        replays, seen = recorder.replays, list[str]()

        def observe(node: Node, args: Sequence[Any], run: Callable[[], Any]) -> Any:
            seen.append(node.name)
            assert len(args) == len(node.args)
            return run()

        with call.observe(observe):
            observed = call(x)
        assert replays > 0
        assert recorder.replays == replays
        calls = [node.name for node in graph.graph.nodes if node.op.startswith("call_")]
        assert seen == calls
        torch.testing.assert_close(observed, expected)
        call(x)
    assert recorder.replays == replays + 1
    assert seen == calls


def test_threads_record_and_replay_each_in_its_slot(recorder: Recorder) -> None:
    model = Whole()
    compiled = compile(model, slots=3)
    torch.manual_seed(0)
    inputs = [torch.randn(rows, 3) for rows in (4, 5, 6) for _ in range(60)]

    def request(x: torch.Tensor) -> Any:
        with torch.no_grad():
            return compiled(x)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(request, inputs))
    for x, result in zip(inputs, results, strict=True):
        torch.testing.assert_close(result, model(x))
    row = runtime(compiled)
    assert row.made <= 3
    assert recorder.graphs == row.recorded <= 9
    assert recorder.replays > 100


def test_outputs_that_are_one_tensor_stay_one(recorder: Recorder) -> None:
    compiled = compile(Whole())
    with torch.no_grad():
        for _ in range(3):
            result = compiled(torch.randn(4, 3))
    assert result["a"] is result["again"]


def test_where_data_decides_only_engines_are_recorded(recorder: Recorder) -> None:
    model = Split()
    compiled = compile(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(6):
            x = torch.randn(8, 3)
            torch.testing.assert_close(compiled(x), model(x))
    row = runtime(compiled)
    assert row.recorded == recorder.graphs == 1, "the second engine's rows are never known"
    assert any(reason.startswith("nonzero") for reason in row.unrecorded)
    assert "in no CUDA graph of the whole: nonzero" in str(fxtrt.report(compiled))


def test_a_recording_that_fails_names_the_reason_and_leaves_the_engines(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    model = Whole()
    compiled = compile(model)
    recorder.broken = True
    with torch.no_grad():
        for _ in range(5):
            x = torch.randn(4, 3)
            torch.testing.assert_close(compiled(x), model(x))
    (reason,) = runtime(compiled).unrecorded
    assert reason == "RuntimeError: operation not permitted when stream is capturing"
    assert recorder.graphs == len(fxtrt.report(compiled).clusters)
    assert caplog.text.count("no CUDA graph") == 1


def test_a_shape_that_falls_back_is_counted_and_not_recorded(recorder: Recorder) -> None:
    model = Whole()
    compiled = compile(model)
    module = next(m for m in _graph(compiled).children() if isinstance(m, EngineModule))
    assert isinstance(module.engine, ReferenceEngine)
    (spec,) = module.engine.inputs
    module.engine.inputs = (replace(spec, high=(8, 3)),)
    with torch.no_grad():
        for rows in (9, 4, 9, 4, 9, 4):
            x = torch.randn(rows, 3)
            torch.testing.assert_close(compiled(x), model(x))
    row = runtime(compiled)
    report = fxtrt.report(compiled)
    schema = resources.files("fxtrt.reporting") / "coverage.schema.json"
    jsonschema.validate(json.loads(report.to_json()), json.loads(schema.read_text()))
    assert fxtrt.Coverage.from_json(report.to_json()).runtime == (row,)
    assert "cluster_0 ran 3 times in PyTorch: " in report.to_markdown()
    assert recorder.graphs == 1
    assert [fallback.calls for fallback in row.fallbacks] == [3]
    assert any("runs in PyTorch" in reason for reason in row.unrecorded)


def test_the_least_recently_used_graph_leaves_for_a_while(recorder: Recorder) -> None:
    model = Whole()
    compiled = compile(model)
    with torch.no_grad():
        for rows in [*range(2, 14), 13, 2]:
            for _ in range(3):
                x = torch.randn(rows, 3)
                torch.testing.assert_close(compiled(x), model(x))
        assert runtime(compiled).recorded == 8
        assert recorder.graphs == 12
        for _ in range(40):
            compiled(torch.randn(2, 3))
    assert runtime(compiled).recorded == 8
    assert recorder.graphs == 13


def test_warming_up_makes_all_slots_and_graphs(recorder: Recorder) -> None:
    compiled = compile(Whole(), slots=3)
    fxtrt.warm_up(compiled, (torch.randn(4, 3),), (torch.randn(6, 3),))
    row = runtime(compiled)
    assert (row.made, row.recorded) == (3, 6)
    assert sorted(Counter(recorder.pools).values()) == [2, 2, 2]  # Those of a slot share memory.
    with pytest.raises(FxtrtError, match=r"what fxtrt\.compile returned"):
        fxtrt.warm_up(Whole())


def test_without_a_gpu_the_report_says_why_there_are_none() -> None:
    compiled = compile(Whole())
    with torch.no_grad():
        compiled(torch.randn(4, 3))
    row = runtime(compiled)
    assert row.recorded == 0
    assert row.unrecorded == ("no engine of the graph is one for GPUs",)


def _graph(compiled: torch.nn.Module) -> torch.fx.GraphModule:
    assert isinstance(compiled.forward, GuardedForward)
    return compiled.forward.graph
