"""Each precision computes in its type, keeps what that type would ruin, and says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

import fxtrt
from fxtrt.builder.casts import narrow_results, with_precision
from fxtrt.builder.float_range import out_of_range
from fxtrt.capture.export import capture_module, trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.tensorrt import TensorRTBackend
from fxtrt.errors import SettingsError
from fxtrt.settings import Settings

X = torch.rand(1, 4, 6, 6)
W = torch.full((4, 4, 1, 1), 0.25)


def settled(function: Any, *inputs: torch.Tensor, **options: Any) -> tuple[GraphModule, list[str]]:
    """The graph in the precision of `options`, and what it keeps, without the reasons."""
    gm, kept = with_precision(trace(function, inputs), Settings(**options))
    return gm, [entry.partition(":")[0] for entry in kept]


def dtypes(gm: GraphModule) -> dict[str, torch.dtype]:
    """Return the dtypes of all calls but casts, by name."""
    return {n.name: n.meta["val"].dtype for n in calls(gm) if "to_copy" not in n.name}


def calls(gm: GraphModule) -> list[Node]:
    return [node for node in gm.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("precision", ["model", "tf32"])
def test_a_model_may_keep_its_dtypes(precision: str) -> None:
    cluster = trace(lambda x: F.conv2d(x, W).relu(), (X,))
    assert with_precision(cluster, Settings(precision=precision)) == (cluster, ())


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.half), ("bf16", torch.bfloat16)])
def test_products_compute_in_the_narrow_type(precision: str, dtype: torch.dtype) -> None:
    gm, kept = settled(lambda x: F.conv2d(x, W).relu().exp(), X, precision=precision)
    assert dtypes(gm) == {"convolution": dtype, "relu": dtype, "exp": torch.float32}
    assert gm(X)[0].dtype == torch.float32
    assert kept == []


TINY = torch.full((4, 4, 1, 1), 1e-6)
HALF_TINY = torch.cat([TINY[:2], W[:2]])
NO_NUMBERS = torch.tensor([float("inf"), float("nan"), 0.0, 1.0]).expand(4, 4)[..., None, None]


@pytest.mark.parametrize(
    ("weight", "dtype", "reason"),
    [
        (W, torch.float16, None),
        (W * 4 * 65504, torch.float16, None),
        (W * 4 * 65505, torch.float16, "has 65505, and 65504 is the largest float16"),
        (W * -300_000, torch.float16, "has 75000"),
        (W * 300_000, torch.bfloat16, None),
        (TINY, torch.float16, "is to 100% below 6.1e-05, too small for float16"),
        (HALF_TINY, torch.float16, None),
        (TINY, torch.bfloat16, None),
        (torch.zeros(4, 4, 1, 1), torch.float16, None),
        (NO_NUMBERS, torch.float16, None),
    ],
)
def test_a_weight_must_fit(weight: torch.Tensor, dtype: torch.dtype, reason: str | None) -> None:
    gm = trace(lambda x: F.conv2d(x, weight), (X,))
    (node,) = calls(gm)
    found = out_of_range(gm, node, dtype)
    assert found == reason if reason is None else f"weight {reason}" in str(found)


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (lambda x: x * 1000.0, True),
        (lambda x: x * 70_000, False),
        (lambda x: x + 1e-7, False),
        (lambda x: x.clamp(max=float("inf")), True),
        (lambda x: x.clamp(-1e6, 1e6), False),
        (lambda x: x.expand(70_000, 4, 6, 6).reshape(70_000, 144), True),
    ],
)
def test_a_scalar_must_fit_and_sizes_are_none(function: Any, fits: bool) -> None:
    gm = trace(function, (X,))
    reasons = [out_of_range(gm, node, torch.float16) for node in calls(gm)]
    assert (set(reasons) == {None}) == fits


def test_what_does_not_fit_stays_float32_and_is_named() -> None:
    large = W * 400_000

    def function(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(F.conv2d(x, W), large), W)

    gm, kept = settled(function, X, precision="fp16")
    assert kept == ["convolution_1"]
    assert list(dtypes(gm).values()) == [torch.half, torch.float32, torch.half]
    assert gm(X / 1e4)[0].isfinite().all()
    torch.testing.assert_close(gm(X / 1e4)[0], function(X / 1e4), rtol=1e-2, atol=0)


def test_a_factor_out_of_range_keeps_its_product_with_the_follower_out() -> None:
    gm, kept = settled(lambda x: F.conv2d(x, W).mul(70_000.0).relu(), X, precision="fp16")
    assert kept == ["mul"]
    assert dtypes(gm) == {"convolution": torch.half, "mul": torch.float32, "relu": torch.float32}


class Heads(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(4, 4, 1)
        self.box = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.box(self.body(x))
        return result


@pytest.mark.parametrize(
    ("keep", "halves"), [((), 3), (("box",), 1), (("box.0",), 1), (("*.relu",), 2), (("*",), 0)]
)
def test_patterns_keep_what_they_name(keep: tuple[str, ...], halves: int) -> None:
    exported = capture_module(Heads().eval(), (X,))
    gm, kept = with_precision(exported, Settings(precision="fp16", keep_fp32=keep))
    assert list(dtypes(gm).values()).count(torch.half) == halves
    assert kept == ()


def test_a_pattern_that_names_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="'bax' matches no node: did you mean 'box'"):
        fxtrt.compile(Heads().eval(), (X,), engine="reference", keep_fp32=("bax",))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fp32_is_more_accurate_than_a_half_model(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), torch.nn.Sigmoid()) for _ in range(6)]
    model = torch.nn.Sequential(*layers).eval().to(dtype)
    x = torch.rand(1, 4, 6, 6, dtype=dtype)
    exact = torch.nn.Sequential(*layers).double()(x.double())
    model.to(dtype)
    with torch.no_grad():
        compiled = fxtrt.compile(model, (x,), engine="reference", precision="fp32")
        result = compiled(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result, exact.to(dtype), rtol=0, atol=0)


def test_tf32_is_a_flag_of_the_builder(rtx: TensorRTBackend) -> None:
    network = convert(trace(lambda x: x.relu(), (X,)), rtx.features)
    flag = rtx.features.trt.BuilderFlag.TF32
    allowed = {
        precision: rtx.config(network, Settings(precision=precision)).get_flag(flag)
        for precision in ("model", "fp32", "tf32", "fp16", "bf16")
    }
    assert [precision for precision, is_set in allowed.items() if is_set] == ["tf32"]


def test_a_size_that_varies_is_no_obstacle() -> None:
    """`upsample_nearest2d.vec` takes apart symbolic sizes in Python only."""

    class TopDown(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.side = torch.nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            top = torch.nn.functional.interpolate(self.down(x), size=x.shape[-2:])
            result: torch.Tensor = self.side(x) + top
            return result

    model, sides = (
        TopDown().eval(),
        {2: Dim("height", min=8, max=64), 3: Dim("width", min=8, max=64)},
    )
    compiled = fxtrt.compile(
        model,
        (torch.rand(1, 3, 17, 24),),
        dynamic_shapes=(sides,),
        engine="reference",
        precision="fp16",
    )
    assert fxtrt.report(compiled).flops_share == 1.0
    for size in ((17, 24), (32, 9)):
        x = torch.rand(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), atol=5e-3, rtol=5e-3)


def some_wide(x: torch.Tensor) -> Any:
    a = F.conv2d(x, W).relu()
    b, c = torch.split(F.conv2d(a + 1e6, W), 2, 1)
    d = F.conv2d(a.exp(), TINY)
    return (
        torch.cat([a, b.exp(), c], 1),
        torch.cat([b, c]).flatten(1),
        d.relu(),
        (a * 0.5).softmax(1),
    )


@pytest.mark.parametrize("options", [{}, {"keep_fp32": ("convolution_1",)}])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32", "model"])
def test_what_will_be_narrow_is_known_before(precision: Any, options: dict[str, Any]) -> None:
    """The boundary of a cluster is decided before its casts are written."""
    gm = trace(some_wide, (X,))
    settings = Settings(precision=precision, **options)
    wanted = calls(gm)
    known = {node.name for node in narrow_results(gm, wanted, wanted, settings)}
    cast, _ = with_precision(gm, settings)
    assert known == {name for name, dtype in dtypes_of_tensors(cast).items() if dtype.itemsize == 2}
    assert bool(known) == (precision in ("fp16", "bf16"))


def dtypes_of_tensors(gm: GraphModule) -> dict[str, torch.dtype]:
    """Like `dtypes`; a call with several results has the dtype of the first."""
    leaves = {node.name: pytree.tree_leaves(node.meta["val"])[0] for node in calls(gm)}
    return {name: leaf.dtype for name, leaf in leaves.items() if "to_copy" not in name}
