"""The reference engine as a whole: order, checks, errors, threads, memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from layertests import unit_tested
from networkrun import constant, floats, load, run

from fxtrt.engines import discover
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.interpreter import layers
from fxtrt.engines.network import create_network
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.errors import (
    BuildError,
    EngineError,
    EngineUnavailable,
)
from fxtrt.graph.specs import TensorSpec
from fxtrt.settings import Settings


@pytest.fixture
def trt(reference: EngineBackend) -> Any:
    return reference.features.trt


def relu_of(trt: Any) -> Any:
    return lambda net, x: net.add_activation(x, trt.ActivationType.RELU).get_output(0)


def test_backend_describes_itself(reference: EngineBackend) -> None:
    assert reference.name == "reference"
    assert (reference.plans, reference.runnable, reference.bounded) == (False, True, False)
    assert torch.__version__ in reference.fingerprint
    assert reference.features.version in reference.fingerprint
    assert reference.supports(torch.device("cpu")) is None


def test_build_and_plans_are_refused(reference: EngineBackend) -> None:
    network = create_network(reference.features)
    with pytest.raises(BuildError, match="makes no plans"):
        reference.build(network, Settings())
    with pytest.raises(EngineError, match="cannot load a plan"):
        reference.load(b"plan", [], [])


def test_missing_modules_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "available", lambda names: None)
    with pytest.raises(EngineUnavailable, match="pip install tensorrt-rtx"):
        ReferenceBackend()


def test_available_skips_what_is_not_installed() -> None:
    assert discover.available(["no_such_module_anywhere"]) is None
    found = discover.available(["no_such_module_anywhere", "json"])
    assert found is not None
    assert found.__name__ == "json"


def test_module_that_fails_to_import_is_skipped(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken_trt.py").write_text("raise ImportError('libnvinfer.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    assert discover.available(["broken_trt"]) is None
    assert "libnvinfer.so is missing" in caplog.text


def test_tensorrt_is_not_imported_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(discover, "_load", lambda name: pytest.fail(f"imported {name}"))
    assert discover.available(["tensorrt"]) is None


def test_layers_run_in_topological_order(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any) -> Any:
        late = net.add_elementwise(x, x, trt.ElementWiseOperation.SUM)
        doubled = net.add_elementwise(x, x, trt.ElementWiseOperation.PROD)
        late.set_input(1, doubled.get_output(0))
        return late.get_output(0)

    assert run(reference, build, floats(2, 3)).tolist() == [6, 12]


def test_outputs_come_in_order_and_can_be_used_inside(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any) -> tuple[Any, Any]:
        first = net.add_elementwise(x, x, trt.ElementWiseOperation.SUM).get_output(0)
        second = net.add_elementwise(first, x, trt.ElementWiseOperation.SUM).get_output(0)
        return second, first

    second, first = run(reference, build, floats(1, 2))
    assert second.tolist() == [3, 6]
    assert first.tolist() == [2, 4]


def test_unknown_layer_is_refused_by_name(
    reference: EngineBackend, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(reference, relu_of(trt), floats(1))
    monkeypatch.delitem(layers.HANDLERS, "ACTIVATION")

    def build(net: Any, x: Any) -> Any:
        layer = net.add_activation(x, trt.ActivationType.RELU)
        layer.name = "relu_7"
        return layer.get_output(0)

    with pytest.raises(EngineError, match=r"'relu_7' is a ACTIVATION layer.*cannot execute"):
        load(reference, build, floats(1))


def test_every_layer_type_has_tests(reference: EngineBackend, trt: Any) -> None:
    load(reference, relu_of(trt), floats(1.0))  # fills the table
    assert set(layers.HANDLERS) <= unit_tested()


def test_layer_without_defined_values_is_refused(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any) -> Any:
        layer = net.add_fill((3,), trt.FillOperation.RANDOM_UNIFORM)
        layer.name = "noise"
        return layer.get_output(0)

    with pytest.raises(EngineError, match=r"'noise'.*RANDOM_UNIFORM"):
        load(reference, build)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[:1], r"has shape \(1,\), TensorRT infers \(2,\)"),
        (lambda x: x.unsqueeze(0), r"has shape \(1, 2\)"),
        (lambda x: x.double(), r"is torch.float64, TensorRT infers torch.float32"),
    ],
)
def test_disagreement_with_tensorrt_is_caught(
    reference: EngineBackend,
    trt: Any,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Any,
    message: str,
) -> None:
    run(reference, relu_of(trt), floats(1, 2))
    monkeypatch.setitem(layers.HANDLERS, "ACTIVATION", ("IActivationLayer", lambda layer: wrong))
    engine = load(reference, relu_of(trt), floats(1, 2))
    with pytest.raises(EngineError, match=message):
        engine.run([floats(1, 2)])


def test_failure_names_layer_and_operands(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any, y: Any) -> Any:
        layer = net.add_elementwise(x, y, trt.ElementWiseOperation.SUM)
        layer.name = "sum"
        return layer.get_output(0)

    engine = load(reference, build, floats(1, 2), floats(1, 2), dynamic=True)
    with pytest.raises(EngineError, match=r"'sum' \(ELEMENTWISE\) of \(2,\) torch.float32, \(3,\)"):
        engine.run([floats(1, 2), floats(1, 2, 3)])


def test_inputs_are_checked(reference: EngineBackend, trt: Any) -> None:
    engine = load(reference, relu_of(trt), floats(1, 2))
    with pytest.raises(EngineError, match="0 tensors for 1 inputs"):
        engine.run([])
    with pytest.raises(EngineError, match=r"x0 has shape \(3,\), expected 2"):
        engine.run([floats(1, 2, 3)])
    with pytest.raises(EngineError, match=r"x0 is torch.int64"):
        engine.run([torch.tensor([1, 2])])


def test_names_of_inputs_and_outputs_are_checked(reference: EngineBackend) -> None:
    network = create_network(reference.features)
    network.definition.add_input("image", reference.features.to_trt(torch.float32), (1,))
    spec = TensorSpec("x0", torch.float32, (1,), (1,), (1,))
    with pytest.raises(EngineError, match=r"inputs are \['image'\], expected \['x0'\]"):
        reference.load(network, [spec], [])


def test_inputs_on_two_devices_are_refused(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any, y: Any) -> Any:
        return net.add_elementwise(x, y, trt.ElementWiseOperation.SUM).get_output(0)

    engine = load(reference, build, floats([1]), floats([1]))
    with pytest.raises(EngineError, match=r"cpu.*meta"):
        engine.run([floats([1]), torch.empty(1, device="meta")])


def test_weights_outlive_the_network(reference: EngineBackend) -> None:
    def build(net: Any, x: Any) -> Any:
        return net.add_convolution_nd(
            x, 1, (1, 1), torch.tensor([3.0]).numpy(), torch.tensor([0.5]).numpy()
        ).get_output(0)

    engine = load(reference, build, torch.ones(1, 1, 1, 1))
    filler = [torch.rand(64) for _ in range(100)]
    assert engine.run([torch.ones(1, 1, 1, 1)])[0].item() == 3.5
    assert len(filler) == 100


def test_outputs_are_memory_of_their_own(reference: EngineBackend) -> None:
    def build(net: Any, x: Any) -> tuple[Any, Any]:
        return net.add_identity(x).get_output(0), constant(net, [1.0, 2.0], torch.float32)

    x = floats(1, 2)
    engine = load(reference, build, x)
    copied, value = engine.run([x])
    copied.zero_()
    value.zero_()
    assert x.tolist() == [1, 2]
    assert engine.run([x])[1].tolist() == [1, 2]


def test_bfloat16_constants_come_from_the_network(reference: EngineBackend, trt: Any) -> None:
    if torch.bfloat16 not in reference.features.dtypes:
        pytest.skip("this TensorRT has no bfloat16")
    network = create_network(reference.features)
    value = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    weights = trt.Weights(trt.DataType.BF16, value.data_ptr(), value.numel())
    layer = network.definition.add_constant((2,), weights)
    layer.name = "w"
    layer.get_output(0).name = "y0"
    network.definition.mark_output(layer.get_output(0))
    spec = TensorSpec("y0", torch.bfloat16, (2,), (2,), (2,))
    with pytest.raises(EngineError, match=r"'w'.*cannot be read back.*Network\.weights"):
        reference.load(network, [], [spec])
    network.weights["w"] = value
    (result,) = reference.load(network, [], [spec]).run([])
    torch.testing.assert_close(result, value)


def test_threads_share_an_engine(reference: EngineBackend, trt: Any) -> None:
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def build(net: Any, x: Any) -> Any:
        convolved = net.add_convolution_nd(x, 8, (3, 3), weight.numpy()).get_output(0)
        return net.add_activation(convolved, trt.ActivationType.RELU).get_output(0)

    images = [torch.full((1, 3, 16, 16), float(i)) for i in range(16)]
    engine = load(reference, build, images[0])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda image: engine.run([image])[0], images))
    for image, result in zip(images, results, strict=True):
        torch.testing.assert_close(result, torch.conv2d(image, weight).relu())


def test_operations_without_a_half_kernel_compute_in_float(
    reference: EngineBackend, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    def picky(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.dtype)
        if x.dtype == torch.float16:
            raise NotImplementedError("\"picky\" not implemented for 'Half'")
        return x * 2

    monkeypatch.setitem(layers.HANDLERS, "ACTIVATION", ("IActivationLayer", lambda layer: picky))
    result = run(reference, relu_of(trt), torch.tensor([1.5], dtype=torch.float16))
    assert seen == [torch.float16, torch.float32]
    assert result.dtype == torch.float16
    assert result.tolist() == [3.0]


def test_runs_without_recording_gradients(reference: EngineBackend, trt: Any) -> None:
    x = torch.tensor([1.0], requires_grad=True)
    assert not run(reference, relu_of(trt), x).requires_grad
