"""Networks have the inputs, outputs and sizes of their clusters, and errors name the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oprow import layer_kinds

from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.errors import ConversionError
from fxtrt.registry import Converter, registered

aten = torch.ops.aten
X = torch.randn(3, 4)


def run(
    function: Callable[..., Any], *inputs: torch.Tensor, backend: EngineBackend
) -> tuple[torch.Tensor, ...]:
    network = convert(trace(function, inputs), backend.features)
    return backend.load(network, network.inputs, network.outputs).run(inputs)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: (x, x + 1), id="an input"),
        pytest.param(lambda x: (x + 1, x * 2, x + 1), id="several"),
        pytest.param(lambda x: (lambda y: (y, y))(x + 1), id="one value twice"),
        pytest.param(lambda x: (x + 1, torch.ones(2) * 1), id="a constant"),
        pytest.param(lambda x: (x.sum(), x[0, 0] > 0), id="scalars"),
    ],
)
def test_outputs_may_be_inputs_constants_or_the_same_twice(
    function: Callable[..., Any], reference: EngineBackend
) -> None:
    actual = run(function, X, backend=reference)
    torch.testing.assert_close(actual, tuple(function(X)))


def test_sizes_are_read_off_the_inputs(reference: EngineBackend) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        n, m = x.shape[0], y.shape[1]
        pooled = x.view(n // 2, 2 * x.shape[1]).repeat(1, m)
        return pooled[:, : (n * m) // 3 + 1] * (n % 5) + torch.sym_max(n, m)

    example = torch.randn(4, 6), torch.randn(2, 3)
    network = convert(trace(function, example, dynamic=True), reference.features)
    engine = reference.load(network, network.inputs, network.outputs)
    for n, k, m in ((4, 6, 3), (8, 5, 2), (6, 2, 7)):
        inputs = torch.randn(n, k), torch.randn(2, m)
        torch.testing.assert_close(engine.run(inputs)[0], function(*inputs))


def test_static_sizes_need_no_shape_layers(reference: EngineBackend) -> None:
    gm = trace(lambda x: x.view(x.shape[1], -1).flatten()[: x.shape[0]], (X,))
    assert set(layer_kinds(convert(gm, reference.features))) <= {"SHUFFLE", "SLICE"}


def broken(monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any]) -> None:
    converter = Converter(aten.relu.default, build, parameters={"self": "x"})
    monkeypatch.setattr(
        "fxtrt.registry._CONVERTERS", {**registered(), aten.relu.default: converter}
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(lambda ctx, x: ctx.reshape(x, (5, 5)), "reshape|dimension", id="TensorRT"),
        pytest.param(lambda ctx, x: ctx.reshape(x, (4, 3)), r"give shape \(4, 3\)", id="shape"),
        pytest.param(lambda ctx, x: ctx.cast(x, torch.int32), "give torch.int32", id="dtype"),
        pytest.param(lambda ctx, x: 1 / 0, "division by zero", id="a bug"),
        pytest.param(
            lambda ctx, x: ctx.net.add_convolution_nd(x, 1, (3,), X.numpy()).get_output(0),
            "did not convert",
            id="a layer that TensorRT refuses",
        ),
    ],
)
def test_a_wrong_converter_is_caught(
    build: Callable[..., Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    reference: EngineBackend,
) -> None:
    broken(monkeypatch, build)
    with pytest.raises(ConversionError, match=message) as caught:
        convert(trace(torch.relu, (X,)), reference.features)
    assert "relu = aten.relu.default" in str(caught.value)
    assert "(3, 4) torch.float32" in str(caught.value)
    assert "blacklist" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_layers_are_named_after_their_nodes(reference: EngineBackend) -> None:
    definition = convert(trace(lambda x: torch.relu(x) + 1, (X,)), reference.features).definition
    names = {definition.get_layer(i).name.split(".")[0] for i in range(definition.num_layers)}
    assert names == {"relu", "add"}
