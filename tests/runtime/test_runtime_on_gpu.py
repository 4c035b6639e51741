"""Slots, streams and CUDA graphs on a real TensorRT and a real GPU (`-m gpu`)."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from levels import Levels

import fxtrt
from fxtrt.engines.tensorrt import TensorRTBackend
from fxtrt.errors import BuildError, EngineUnavailable
from fxtrt.reporting import RuntimeRow

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

TACTICS = ("JIT_CONVOLUTIONS", "EDGE_MASK_CONVOLUTIONS")
"""Tactics that need neither cuBLAS nor cuDNN, so that the tests run wherever TensorRT does."""
LOW, HIGH = 16, 64
"""The heights and widths that engines take."""


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests, which build the same few engines; skips without a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    try:
        TensorRTBackend("tensorrt")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    folder: Path = tmp_path_factory.mktemp("plans")
    return folder


@pytest.fixture(autouse=True)
def all_done() -> Iterator[None]:
    """What one test left on the GPU ends before the next one starts."""
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Net(torch.nn.Module):
    """Two engines with PyTorch's sigmoid between them; `split` is False: one engine."""

    def __init__(self, *, split: bool) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.third = torch.nn.Conv2d(8, 4, 3, padding=1)
        self.split = split

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))))
        if self.split:
            y = torch.sigmoid(y)
        return torch.relu(self.third(y) + 1) * 2


class Counted(torch.nn.Module):
    """How many rows pass between its engines depends on data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.relu(x * 2 - 1) * 0.5
        found = torch.nonzero(rows[:, 0]).squeeze(1)
        return torch.relu(rows[found] * 3 - 1)


def net(*, split: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(split=split).eval().cuda()


def image(generator: random.Random, height: int = 0, width: int = 0) -> torch.Tensor:
    size = (height or generator.randint(LOW, HIGH), width or generator.randint(LOW, HIGH))
    return torch.randn(1, 3, *size, device="cuda")


def compiled(model: Net, plans: Path, *, dynamic: bool, **options: Any) -> Any:
    sizes = {side: torch.export.Dim(f"side{side}", min=LOW, max=HIGH) for side in (2, 3)}
    try:
        with torch.no_grad():
            return fxtrt.compile(
                model,
                (torch.randn(1, 3, 48, 32, device="cuda"),),
                engine="tensorrt",
                dynamic_shapes=(sizes,) if dynamic else None,
                tactic_sources=TACTICS,
                optimization_level=0,
                min_cluster_size=1,
                on_build_failure="raise",
                blacklist=("aten.sigmoid",) if model.split else (),
                cache_dir=plans,
                **options,
            )
    except BuildError as error:
        if "Could not find any implementation" in str(error):
            pytest.skip(f"needs cuDNN or cuBLAS, which {TACTICS} leave out: {error}")
        raise


def runtime(model: Any) -> RuntimeRow:
    (row,) = fxtrt.report(model).runtime
    return row


def one_by_one(model: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        results = [model(x) for x in inputs]
    torch.cuda.synchronize()
    return results


def in_threads(
    model: Any, inputs: Sequence[torch.Tensor], threads: int, *, streams: bool
) -> list[torch.Tensor]:
    """The results of several threads, each on a stream of its own or all on the default one.

    Inputs are made on the caller's stream, outputs are read on it, and nothing waits for the GPU.
    """
    torch.cuda.synchronize()
    local = threading.local()

    def request(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            # Made here, by kernels that may not have run when the model is called.
            mine = (x * 2) * 0.5
            result: torch.Tensor = model(mine)
            del mine
            kept = result.clone()
            # Whatever takes the memory of `result` now must not reach `kept`.
            del result
            torch.full_like(kept, torch.nan)
            return kept

    def on_stream(x: torch.Tensor) -> torch.Tensor:
        if not streams:
            return request(x)
        if not hasattr(local, "stream"):
            local.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
        with torch.cuda.stream(local.stream):
            return request(x)

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(on_stream, inputs))
    torch.cuda.synchronize()
    return results


def assert_same(actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for index, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert torch.equal(a, e), f"request {index}: off by {float((a - e).abs().max()):.2e}"


def assert_near(model: Callable[..., Any], x: torch.Tensor, actual: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(actual, model(x), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("streams", "slots", "requests"),
    [(True, 1, 300), (True, 4, 300), (True, 8, 1000), (False, 8, 1000)],
    ids=["one slot", "4 slots", "8 slots", "default stream"],
)
def test_eight_threads_equal_one(streams: bool, slots: int, requests: int, plans: Path) -> None:
    model = net(split=True)
    fast = compiled(model, plans, dynamic=True, slots=slots)
    draw = random.Random(0)
    inputs = [image(draw) for _ in range(requests)]
    expected = one_by_one(fast, inputs)
    assert runtime(fast).made == 1, "one thread on one stream takes one slot"
    for x, result in list(zip(inputs, expected, strict=True))[:5]:
        assert_near(model, x, result)
    assert_same(one_by_one(fast, inputs), expected)
    assert_same(in_threads(fast, inputs, 8, streams=streams), expected)
    row = runtime(fast)
    print(f"{row.made} of {row.slots} slots, {row.scratch_bytes} bytes of scratch memory each")
    assert 1 <= row.made <= slots
    assert row.fallbacks == ()


def test_a_slot_goes_from_stream_to_stream(plans: Path) -> None:
    """One slot for many streams and no thread: only events keep the order."""
    fast = compiled(net(), plans, dynamic=False, slots=1)
    inputs = [image(random.Random(0), 48, 32) for _ in range(64)]
    expected = one_by_one(fast, inputs)
    streams = [torch.cuda.Stream() for _ in range(5)]  # type: ignore[no-untyped-call]  # torch's
    results = []
    with torch.no_grad():
        for index, x in enumerate(inputs):
            with torch.cuda.stream(streams[index % 5]):
                results.append(fast(x))
    torch.cuda.synchronize()
    assert_same(results, expected)
    assert runtime(fast).made == 1


def test_memory_is_there_once_and_told_before(plans: Path) -> None:
    fast = compiled(net(), plans, dynamic=False, slots=3)
    gc.collect()
    row = runtime(fast)
    assert row.made == 0
    assert row.scratch_bytes > 0
    x = image(random.Random(0), 48, 32)
    before = torch.cuda.memory_allocated()
    result = one_by_one(fast, [x])[0]
    grown = torch.cuda.memory_allocated() - before - result.nbytes
    assert row.scratch_bytes <= grown <= row.scratch_bytes + 2**20


def test_other_sizes_run_in_pytorch_and_are_counted(plans: Path) -> None:
    model = net()
    fast = compiled(model, plans, dynamic=True)
    large = torch.randn(1, 3, 2 * HIGH, HIGH, device="cuda")
    for _ in range(2):
        assert_near(model, large, one_by_one(fast, [large])[0])
    assert sum(fast.forward.fallbacks.values()) == 2
    small = image(random.Random(0))
    assert_near(model, small, one_by_one(fast, [small])[0])


@pytest.mark.parametrize("split", [False, True], ids=["one engine", "PyTorch in between"])
def test_a_whole_model_replays(split: bool, plans: Path) -> None:
    model = net(split=split)
    plain = compiled(model, plans, dynamic=True)
    fast = compiled(model, plans, dynamic=True, cuda_graphs=True)
    draw = random.Random(1)
    inputs = [image(draw, height, 32) for height in (32, 48, 32, 48, 32, 32, 48, 64)]
    expected = one_by_one(plain, inputs)
    # The results are all held: a replay must not write to those of earlier calls.
    assert_same(one_by_one(fast, inputs), expected)
    row = runtime(fast)
    assert row.unrecorded == ()
    assert row.recorded == 2
    with torch.inference_mode():
        assert torch.equal(fast(inputs[0]), expected[0])


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["engines", "CUDA graphs"])
def test_a_loaded_model_gives_the_same_bits(cuda_graphs: bool, plans: Path, tmp_path: Path) -> None:
    fast = compiled(net(split=True), plans, dynamic=True)
    draw = random.Random(4)
    inputs = [image(draw, 48, 32) for _ in range(4)] + [image(draw) for _ in range(4)]
    expected = one_by_one(fast, inputs)
    fxtrt.save(fast, tmp_path / "net.fxtrt")
    loaded = fxtrt.load(
        tmp_path / "net.fxtrt", net(split=True), cache_dir=tmp_path, cuda_graphs=cuda_graphs
    )
    assert_same(one_by_one(loaded, inputs), expected)
    builds = [row.build for row in fxtrt.report(loaded).clusters]
    assert [build.cached for build in builds if build is not None] == [True] * 2
    assert runtime(loaded).recorded == cuda_graphs
    assert runtime(loaded).fallbacks == ()


@pytest.mark.parametrize("streams", [True, False], ids=["streams", "default stream"])
def test_graphs_are_recorded_while_others_serve(streams: bool, plans: Path) -> None:
    model = net(split=True)
    plain = compiled(model, plans, dynamic=True)
    fast = compiled(model, plans, dynamic=True, cuda_graphs=True, slots=4)
    draw = random.Random(2)
    inputs = [image(draw, draw.choice((32, 48, 64)), 32) for _ in range(200)]
    expected = one_by_one(plain, inputs)
    assert_same(in_threads(fast, inputs, 4, streams=streams), expected)
    row = runtime(fast)
    print(f"{row.recorded} graphs in {row.made} slots; {row.unrecorded}")
    assert row.unrecorded == ()
    assert 3 <= row.recorded <= 3 * row.made


def test_engines_replay_around_what_depends_on_data(plans: Path) -> None:
    model = Counted().cuda().eval()
    torch.manual_seed(0)
    inputs = [torch.randn(64, 16, device="cuda") for _ in range(6)]
    with torch.no_grad():
        fast = fxtrt.compile(
            model,
            (inputs[0],),
            engine="tensorrt",
            tactic_sources=TACTICS,
            optimization_level=0,
            min_cluster_size=2,
            cache_dir=plans,
            cuda_graphs=True,
        )
    assert fxtrt.report(fast).clusters
    for x, result in zip(inputs, one_by_one(fast, inputs), strict=True):
        assert_near(model, x, result)
    row = runtime(fast)
    assert row.recorded >= 1
    assert any("depends on data" in reason for reason in row.unrecorded), row.unrecorded


def test_every_slot_is_ready_after_warming_up(plans: Path) -> None:
    fast = compiled(net(), plans, dynamic=True, cuda_graphs=True, slots=3)
    inputs = [image(random.Random(3), 32, 32), image(random.Random(3), 64, 48)]
    fxtrt.warm_up(fast, *((x,) for x in inputs))
    row = runtime(fast)
    assert (row.made, row.recorded) == (3, 6)
    expected = one_by_one(compiled(net(), plans, dynamic=True), inputs * 20)
    assert_same(in_threads(fast, inputs * 20, 6, streams=True), expected)
    assert runtime(fast).recorded == 6


def test_torch_compile_replays(plans: Path) -> None:
    model = net(split=True)
    options: dict[str, Any] = {
        "engine": "tensorrt",
        "tactic_sources": TACTICS,
        "optimization_level": 0,
        "min_cluster_size": 1,
        "blacklist": ("aten.sigmoid",),
        "cache_dir": plans,
        "cuda_graphs": True,
    }
    fast: Any = torch.compile(model, backend="fxtrt", options=options)
    inputs = [torch.randn(1, 3, 48, 32, device="cuda") for _ in range(5)]
    for x, result in zip(inputs, one_by_one(fast, inputs), strict=True):
        assert_near(model, x, result)
    row = runtime(fast)
    assert row.unrecorded == ()
    assert row.recorded == 1


class Peeking(torch.nn.Module):
    """The host reads a number in the middle, which the graph does not tell."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2 - 1) + 1
        return torch.relu(torch.ops.fxtrt_tests.peek(y) * 3 - 1) + 1


def test_a_recording_that_fails_does_no_harm(plans: Path) -> None:
    """The last test here: whatever it breaks in CUDA breaks no other."""

    @torch.library.custom_op("fxtrt_tests::peek", mutates_args=())
    def peek(x: torch.Tensor) -> torch.Tensor:
        x.sum().item()
        return x + 1

    peek.register_fake(torch.empty_like)
    model = Peeking().cuda().eval()
    inputs = [torch.randn(8, 16, device="cuda") for _ in range(6)]
    fast = fxtrt.compile(
        model,
        (inputs[0],),
        engine="tensorrt",
        tactic_sources=TACTICS,
        optimization_level=0,
        min_cluster_size=2,
        cache_dir=plans,
        cuda_graphs=True,
    )
    assert len(fxtrt.report(fast).clusters) == 2
    for x, result in zip(inputs, one_by_one(fast, inputs), strict=True):
        assert_near(model, x, result)
    row = runtime(fast)
    (reason,) = row.unrecorded
    print(reason)
    assert "peek" in reason
    assert row.recorded == 2, "each engine by itself"
    assert torch.randn(8, device="cuda").isfinite().all()


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_halves_pass_from_engine_to_operator_to_engine(plans: Path, cuda_graphs: bool) -> None:
    model = Levels().eval().cuda()
    sizes = {side: torch.export.Dim(f"side{side}", min=LOW, max=HIGH) for side in (2, 3)}
    x = torch.rand(2, 3, 32, 48, device="cuda")
    with torch.no_grad():
        fast = fxtrt.compile(
            model,
            (x,),
            engine="tensorrt",
            precision="fp16",
            dynamic_shapes=(sizes,),
            on_build_failure="raise",
            cuda_graphs=cuda_graphs,
            cache_dir=plans,
            min_cluster_size=1,
            tactic_sources=TACTICS,
            optimization_level=0,
        )
        first, second = fxtrt.report(fast).clusters
        assert {row.rpartition(": ")[2] for row in first.outputs} == {"float16 channels-last"}
        assert second.inputs == ("pool_levels: float16",)
        for height, width in [(32, 48)] * 3 + [(LOW, HIGH)] * 3:
            x = torch.rand(2, 3, height, width, device="cuda")
            torch.testing.assert_close(fast(x), model(x), atol=5e-3, rtol=0)
    assert not runtime(fast).fallbacks
