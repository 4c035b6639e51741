"""Modes of torch and kinds of tensors that a compiled graph is not for: PyTorch answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import fxtrt
from fxtrt.errors import ArtifactError, CaptureError
from fxtrt.graph.plain import why_unreadable
from fxtrt.runtime.guarded_forward import GuardedForward

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
Modes = Callable[[], AbstractContextManager[Any]]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield


class Body(nn.Module):
    """Its softmax is float32 under autocast, and its last line follows torch's defaults."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.softmax(self.two(torch.relu(self.one(x))) * 50, -1)
        return x + torch.ones(8, device=x.device)


MODEL = Body().eval()


def ahead(**options: Any) -> nn.Module:
    return fxtrt.compile(MODEL, (X,), engine="reference", **options)


def just_in_time(**options: Any) -> Any:
    return torch.compile(MODEL, backend="fxtrt", options={"engine": "reference", **options})


def reasons(compiled: nn.Module) -> str:
    assert isinstance(compiled.forward, GuardedForward)
    return "; ".join(compiled.forward.fallbacks)


def autocast(dtype: torch.dtype = torch.bfloat16) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Doubled(TorchFunctionMode):
    """Changes what a function does, as any such mode may."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        return result * 2 if func is torch.softmax else result


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Sees every operator, as those do that count FLOPs."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **kwargs or {})


MODES = [
    pytest.param(autocast, "autocast is torch.bfloat16 on cpu, it was off", id="autocast"),
    pytest.param(lambda: default_dtype(torch.float64), "default dtype", id="default dtype"),
    pytest.param(deterministic, "use_deterministic_algorithms", id="deterministic"),
    pytest.param(Doubled, "Doubled", id="a function mode"),
    pytest.param(Watching, "Watching", id="a dispatch mode"),
]


@pytest.mark.parametrize(("modes", "reason"), MODES)
def test_other_modes_than_when_compiling(modes: Modes, reason: str) -> None:
    fast = ahead()
    with modes():
        torch.testing.assert_close(fast(X), MODEL(X))
    assert reason in reasons(fast)
    fast.forward.fallbacks.clear()  # type: ignore[attr-defined]  # a GuardedForward
    torch.testing.assert_close(fast(X), MODEL(X))
    assert reasons(fast) == ""


@pytest.mark.parametrize(("modes", "reason"), MODES[:3])
@pytest.mark.parametrize("options", [{}, {"blacklist": ("aten.softmax",)}])
def test_modes_of_the_compilation(modes: Modes, reason: str, options: dict[str, Any]) -> None:
    with modes():
        fast, expected = ahead(**options), MODEL(X)
        torch.testing.assert_close(fast(X), expected, atol=0.01, rtol=0.01)
        assert reasons(fast) == ""
    torch.testing.assert_close(fast(X), MODEL(X))
    assert reasons(fast) != ""


@pytest.mark.parametrize(("modes", "_"), MODES)
@pytest.mark.parametrize("options", [{}, {"blacklist": ("aten.softmax",)}])
def test_modes_around_torch_compile(modes: Modes, _: str, options: dict[str, Any]) -> None:
    fast = just_in_time(**options)
    for around in (nullcontext, modes, nullcontext):
        with around():
            torch.testing.assert_close(fast(X), MODEL(X), atol=0.01, rtol=0.01)


def test_autocast_in_another_type() -> None:
    with autocast():
        fast = ahead()
    with autocast(torch.float16):
        torch.testing.assert_close(fast(X), MODEL(X))
    assert "autocast is torch.float16 on cpu, it was torch.bfloat16 on cpu" in reasons(fast)


class Filled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2 + 1).to(torch.ones(8).device) - 3


def test_the_default_device() -> None:
    model = Filled().eval()
    fast = fxtrt.compile(model, (X,), engine="reference")
    with torch.device("meta"):
        assert fast(X).device == model(X).device == torch.device("meta")
    assert "default device is meta, it was cpu" in reasons(fast)
    with torch.device("meta"):
        again = ahead()
        assert again(X).device == MODEL(X).device == torch.device("cpu")
        assert reasons(again) == ""
        torch.testing.assert_close(again(X), MODEL(X))
    with torch.device("cpu"):
        torch.testing.assert_close(fast(X), model(X))


def tangents(model: Any) -> Any:
    return torch.func.jvp(model, (X,), (torch.ones_like(X),))


def dual_tangent(model: Any) -> Any:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, torch.ones_like(X))  # type: ignore[no-untyped-call]  # torch's
        return forward_ad.unpack_dual(model(dual)).tangent  # type: ignore[no-untyped-call]  # torch's


def mapped(model: Any) -> Any:
    return torch.vmap(model)(torch.stack([X, X + 1]))


def gradient(model: Any) -> Any:
    with torch.enable_grad():
        return torch.func.grad(lambda x: model(x).square().sum())(X)


def mapped_jacobian(model: Any) -> Any:
    return torch.func.jacfwd(model)(X)


@pytest.mark.parametrize("transform", [tangents, dual_tangent, mapped, gradient, mapped_jacobian])
@pytest.mark.parametrize("compiled", [ahead, just_in_time])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use of it
def test_transforms_of_the_model(transform: Any, compiled: Any) -> None:
    fast = compiled()
    fast(X)
    torch.testing.assert_close(transform(fast), transform(MODEL))
    torch.testing.assert_close(fast(X), MODEL(X))


class Divided(nn.Module):
    def forward(self, x: torch.Tensor, by: float | complex) -> torch.Tensor:
        return torch.relu(x * 2 + 1) / by


def test_a_negative_zero_is_another_constant() -> None:
    model, x = Divided().eval(), X.abs()
    for compiled, other in ((0.0, -0.0), (-0.0, 0.0)):
        fast = fxtrt.compile(model, (x, compiled), engine="reference")
        torch.testing.assert_close(fast(x, compiled), model(x, compiled))
        assert reasons(fast) == ""
        torch.testing.assert_close(fast(x, other), model(x, other))
        assert reasons(fast) != ""


def test_a_negative_zero_through_torch_compile() -> None:
    """There Dynamo's guards decide; in torch 2.11 they take one zero for the other."""
    model, x = Divided().eval(), X.abs()
    torchs_own = torch.compile(model, backend="eager")
    fast = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    for zero in (0.0, -0.0, 0.0):
        torch.testing.assert_close(fast(x, zero), torchs_own(x, zero))


def test_fake_tensors_get_their_shapes() -> None:
    for fast in (ahead(), just_in_time()):
        fast(X)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            result = fast(mode.from_tensor(X))
        assert (type(result).__name__, result.shape) == ("FakeTensor", X.shape)
        torch.testing.assert_close(fast(X), MODEL(X))


def test_fake_tensors_outside_of_their_mode_never_reach_an_engine() -> None:
    fake = FakeTensorMode().from_tensor(X)
    for fast in (ahead(), just_in_time()):
        with pytest.raises(AssertionError, match="convert all Tensors to FakeTensors"):
            fast(fake)  # As the model itself says, whose weights are not fake.


@pytest.mark.parametrize("strict", [False, True])
def test_a_compiled_model_exports_like_its_model(strict: bool) -> None:
    program = torch.export.export(ahead(), (X,), strict=strict)
    torch.testing.assert_close(program.module()(X + 1), MODEL(X + 1))


def test_a_trace_of_a_compiled_model_is_one_of_its_model() -> None:
    with pytest.warns(Warning, match="deprecated"):
        traced = torch.jit.trace(ahead(), X, check_trace=False)  # type: ignore[no-untyped-call]  # torch's
    assert "aten::linear" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(X + 1), MODEL(X + 1))


def test_a_file_is_for_the_modes_that_it_was_compiled_in(tmp_path: Path) -> None:
    with autocast():
        fxtrt.save(ahead(cache_dir=tmp_path), tmp_path / "body.fxtrt")
        expected = MODEL(X)
    with pytest.raises(ArtifactError, match=r"was torch.bfloat16 on cpu, and is now off"):
        fxtrt.load(tmp_path / "body.fxtrt", MODEL)
    with autocast():
        loaded = fxtrt.load(tmp_path / "body.fxtrt", MODEL)
        torch.testing.assert_close(loaded(X), expected, atol=0.01, rtol=0.01)


class Wrapped(torch.Tensor):
    """A class of tensors that decides itself what operators do."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]  # torch's
        return result * 2 if func is torch.relu else result


def test_tensors_of_classes_with_operators_of_their_own() -> None:
    fast = ahead()
    given = X.as_subclass(Wrapped)
    result = fast(given)
    assert type(result) is Wrapped
    torch.testing.assert_close(result, MODEL(given))
    assert "is a Wrapped" in reasons(fast)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x[None].float() / 255)) + 1


@pytest.mark.parametrize("kind", ["Image", "Mask"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_labelled_tensors_of_torchvision(kind: str, dtype: torch.dtype) -> None:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors", reason="its classes")
    image = torch.randint(0, 255, (3, 9, 9)).to(dtype)
    labelled, model = getattr(tv_tensors, kind)(image), Scaled().eval()
    for example in (image, labelled):
        fast = fxtrt.compile(model, (example,), engine="reference")
        for given in (image, labelled):
            torch.testing.assert_close(fast(given), model(image))
        assert reasons(fast) == ""
    jit: Any = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    for given in (labelled, image):
        torch.testing.assert_close(jit(given), model(image))
    assert fxtrt.report(jit).flops_share == 1.0


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = MODEL

    def forward(self, a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.body(a @ x)  # type: ignore[no-any-return]  # a module's call


def test_sparse_and_dense_tensors_are_not_taken_for_each_other() -> None:
    model, dense = Product().eval(), torch.eye(3)
    sparse = dense.to_sparse()
    fast = fxtrt.compile(model, (dense, X), engine="reference")
    torch.testing.assert_close(fast(sparse, X), model(sparse, X))
    assert " is torch.sparse_coo, expected torch.strided" in reasons(fast)
    fast = fxtrt.compile(model, (sparse, X), engine="reference")
    torch.testing.assert_close(fast(sparse, X), model(sparse, X))
    torch.testing.assert_close(fast(dense, X), model(dense, X))
    assert " is torch.strided, expected torch.sparse_coo" in reasons(fast)
    # No engine could take the sparse one: its product stays in PyTorch, and the report says so.
    (row,) = (row for row in fxtrt.report(fast).rejections if row.code == "shape")
    assert "the tensor is sparse" in row.detail
    jit = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    for a in (dense, sparse):
        torch.testing.assert_close(jit(a, X), model(a, X))


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_nested_tensors_run_in_pytorch(layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([X[:1], X[1:]], layout=layout)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    with pytest.raises(CaptureError, match=r"nested.*padded"):
        fxtrt.compile(model, (nested,), engine="reference")
    fast = fxtrt.compile(model, (X,), engine="reference")
    for part, expected in zip(fast(nested).unbind(), model(nested).unbind(), strict=True):
        torch.testing.assert_close(part, expected)
    assert "0 is" in reasons(fast)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (X, None),
        (nn.Parameter(X), None),
        (X.as_subclass(Wrapped), None),
        (X[:, ::2], None),
        (torch.complex(X, X).conj().imag, "negates"),
        (X.to_sparse(), "sparse"),
        (FakeTensorMode().from_tensor(X), "FakeTensor"),
    ],
)
def test_what_engines_can_read(tensor: torch.Tensor, reason: str | None) -> None:
    found = why_unreadable(tensor)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_an_engine_is_given_no_negated_memory() -> None:
    fast = ahead()
    negated = torch.complex(X, -X).conj().imag
    torch.testing.assert_close(fast(negated), MODEL(X))
    assert reasons(fast) == ""
    (row,) = fxtrt.report(fast).runtime
    assert "negates its memory" in str(row.fallbacks)
