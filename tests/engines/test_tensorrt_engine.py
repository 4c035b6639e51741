"""Contexts are asked in the order that TensorRT wants; a fake one insists on it."""

from __future__ import annotations

import math
import types
from ctypes import c_float, c_int16
from typing import Any

import pytest
import torch
from gpu_model import FakeGpu

from fxtrt.engines.scratch import Scratch
from fxtrt.engines.tensorrt_engine import TensorRTEngine
from fxtrt.errors import EngineError
from fxtrt.graph.specs import TensorSpec

trt_module = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

X = TensorSpec("x", torch.float32, (1, 3), (4, 3), (8, 3))
Y = TensorSpec("y", torch.float32, (1, 3), (4, 3), (8, 3))
SCRATCH = 4096


class FakeContext:
    """Gives 2 * x, once profile, shapes, addresses and scratch memory are there."""

    def __init__(self, engine: FakeEngine, profile: int) -> None:
        self.engine = engine
        self.active_optimization_profile = profile
        self.memory: int | None = None
        self.shape: tuple[int, ...] | None = None
        self.addresses: dict[str, int] = {}
        self.shapes_set = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if not self.engine.shares_profiles:
            raise RuntimeError("the profile is in use")
        self.active_optimization_profile = index
        self.shape = None
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "x"
        assert self.active_optimization_profile >= 0, "no profile"
        self.shape = shape
        self.shapes_set += 1
        return shape[0] <= 8

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "y"
        return (-1, 3) if self.shape is None else self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert self.memory
        assert self.shape is not None
        assert stream == self.engine.gpu.current().cuda_stream
        count = self.shape[0] * self.shape[1]
        memory = {
            name: torch.frombuffer((c_float * count).from_address(address), dtype=torch.float32)
            for name, address in self.addresses.items()
        }
        memory["y"].copy_(memory["x"] * 2)
        return self.engine.enqueues


class OldContext(FakeContext):
    """8.6: the memory is an attribute that can only be written."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("memory" if name == "device_memory" else name, value)


class NewContext(FakeContext):
    """10 and later: it tells what the shapes need, and forgets the memory when they change."""

    needed: int | None = None

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.shape is not None
        self.memory, self.needed = None, SCRATCH * self.shape[0] // 8
        return self.needed

    def set_device_memory(self, address: int, size: int) -> None:
        assert self.needed is not None
        assert size >= self.needed
        self.memory = address


class FakeEngine:
    def __init__(self, gpu: FakeGpu, *, old: bool) -> None:
        self.gpu, self.old = gpu, old
        self.shares_profiles = True
        self.enqueues = True
        self.contexts: list[FakeContext] = []
        if old:
            self.device_memory_size = SCRATCH
        else:
            self.device_memory_size_v2 = SCRATCH

    num_optimization_profiles = 1

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Any]:
        return [X.low, X.optimum, X.high]

    def get_tensor_dtype(self, name: str) -> Any:
        return trt_module.DataType.FLOAT

    def create_execution_context_without_device_memory(self) -> FakeContext:
        assert self.old
        # 8.6 gives the profile to the first context only.
        self.contexts.append(OldContext(self, -1 if self.contexts else 0))
        return self.contexts[-1]

    def create_execution_context(self, strategy: str) -> FakeContext:
        assert not self.old
        assert strategy == "user managed"
        self.contexts.append(NewContext(self, 0))
        return self.contexts[-1]


def load(
    monkeypatch: pytest.MonkeyPatch,
    *,
    old: bool = True,
    kind: type[FakeEngine] = FakeEngine,
    specs: tuple[TensorSpec, TensorSpec] = (X, Y),
) -> tuple[TensorRTEngine, FakeEngine]:
    fake = kind(FakeGpu(monkeypatch), old=old)
    module: Any = types.ModuleType("tensorrt")
    module.DataType, module.ILogger = trt_module.DataType, trt_module.ILogger
    module.TensorFormat = trt_module.TensorFormat
    module.Runtime = lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: fake)
    if not old:
        module.ExecutionContextAllocationStrategy = types.SimpleNamespace(
            USER_MANAGED="user managed"
        )
        module.IExecutionContext = NewContext
    engine = TensorRTEngine(module, b"plan", specs[:1], specs[1:])
    engine.device = torch.device("cpu")
    return engine, fake


@pytest.mark.parametrize("old", [True, False], ids=["8.6", "10 and later"])
def test_contexts_share_scratch_and_profile(monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    engine, fake = load(monkeypatch, old=old)
    scratch = Scratch(torch.device("cpu"))
    contexts = [engine.context(scratch) for _ in range(3)]
    for count in (1, 8, 8, 3):
        for context in contexts:
            x = torch.randn(3, count).t()
            torch.testing.assert_close(context.run([x])[0], x * 2)
    assert {context.memory for context in fake.contexts} == {scratch.block.data_ptr()}
    assert [context.shapes_set for context in fake.contexts] == [3, 3, 3]


@pytest.mark.parametrize(
    ("old", "sizes"), [(True, [SCRATCH] * 3), (False, [1024, 2048, 2048])], ids=["8.6", "10"]
)
def test_scratch_memory_is_what_the_shapes_need(
    monkeypatch: pytest.MonkeyPatch, old: bool, sizes: list[int]
) -> None:
    engine, _ = load(monkeypatch, old=old)
    scratch = Scratch(torch.device("cpu"))
    first, second = engine.context(scratch), engine.context(scratch)
    taken = []
    for context, count in [(first, 2), (second, 4), (first, 1)]:
        x = torch.randn(count, 3)
        torch.testing.assert_close(context.run([x])[0], x * 2)
        taken.append(scratch.block.nbytes)
    assert taken == sizes


def test_a_block_that_grows_leaves_the_old_one_to_who_keeps_it() -> None:
    scratch = Scratch(torch.device("cpu"), 16)
    old = scratch.block
    assert scratch.at_least(8) is old
    assert scratch.at_least(32) is scratch.block
    assert (old.nbytes, scratch.block.nbytes) == (16, 32)


def test_a_context_of_its_own_for_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, fake = load(monkeypatch)
    x = torch.randn(2, 3)
    for _ in range(2):
        torch.testing.assert_close(engine.run([x])[0], x * 2)
    assert len(fake.contexts) == 2


def test_what_tensorrt_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, fake = load(monkeypatch)
    context = engine.context()
    with pytest.raises(EngineError, match=r"refused x of shape \(9, 3\)"):
        context.run([torch.randn(9, 3)])
    torch.testing.assert_close(context.run([torch.ones(2, 3)])[0], torch.full((2, 3), 2.0))
    fake.enqueues = False
    with pytest.raises(EngineError, match="could not enqueue"):
        context.run([torch.randn(2, 3)])
    fake.shares_profiles = False
    with pytest.raises(EngineError, match="cannot have profile 0: the profile is in use"):
        engine.context()
    monkeypatch.setattr(fake, "create_execution_context_without_device_memory", lambda: None)
    with pytest.raises(EngineError, match="use fewer slots"):
        engine.context()


class TwoProfiles(FakeEngine):
    num_optimization_profiles = 2

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Any]:
        return [X.low, [(1, 3), (8, 3)][profile], X.high]


@pytest.mark.parametrize("old", [True, False], ids=["8.6", "10"])
def test_the_profile_is_that_of_the_nearest_shapes(
    monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    engine, fake = load(monkeypatch, old=old, kind=TwoProfiles)
    first, second = engine.context(), engine.context()
    taken = []
    for context, count in [(first, 1), (first, 2), (second, 3), (first, 8), (first, 1)]:
        x = torch.randn(count, 3)
        torch.testing.assert_close(context.run([x])[0], x * 2)
        taken.append([one.active_optimization_profile for one in fake.contexts])
    assert taken == [[0, 0], [0, 0], [0, 1], [1, 1], [0, 1]]
    fake.shares_profiles = False
    with pytest.raises(EngineError, match="cannot have profile 1: the profile is in use"):
        first.run([torch.randn(8, 3)])
    fake.shares_profiles = True
    torch.testing.assert_close(first.run([torch.ones(8, 3)])[0], torch.full((8, 3), 2.0))


LAST = (
    TensorSpec("x", torch.float16, (2, 8, 3, 4), (2, 8, 3, 4), (2, 8, 3, 4), channels_last=True),
    TensorSpec("y", torch.float16, (2, 8, 3, 4), (2, 8, 3, 4), (2, 8, 3, 4), channels_last=True),
)


class LastContext(OldContext):
    """Gives 2 * x for halves, in memory as it lies: with the channels of a pixel side by side."""

    def execute_async_v3(self, stream: int) -> bool:
        count = math.prod(LAST[0].low)
        x, y = (
            torch.frombuffer((c_int16 * count).from_address(self.addresses[name]), dtype=torch.half)
            for name in ("x", "y")
        )
        y.view(2, 3, 4, 8).copy_(x.view(2, 3, 4, 8) * torch.arange(8))
        return True


class LastEngine(FakeEngine):
    format = trt_module.TensorFormat.HWC8

    def get_tensor_dtype(self, name: str) -> Any:
        return trt_module.DataType.HALF

    def get_tensor_format(self, name: str) -> Any:
        return self.format

    def create_execution_context_without_device_memory(self) -> FakeContext:
        return LastContext(self, 0)


def test_channels_last_tensors_lie_as_tensorrt_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = load(monkeypatch, kind=LastEngine, specs=LAST)
    x = torch.randn(2, 8, 3, 4).half()
    expected = x * torch.arange(8)[None, :, None, None]
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        (y,) = engine.run([given])
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, expected.half())


def test_a_plan_in_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LastEngine, "format", trt_module.TensorFormat.LINEAR)
    with pytest.raises(EngineError, match=r"has x in the format .*LINEAR, expected HWC8"):
        load(monkeypatch, kind=LastEngine, specs=LAST)
