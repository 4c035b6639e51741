"""A prepared detector is one graph under torch.compile for images of all sizes, as eager."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")

from small_torchvision import small_one_stage, small_rcnn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

import fxtrt
from fxtrt.detection import prepare
from fxtrt.diagnostics.example_models import load_photograph

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


def picture(height: int, width: int) -> Any:
    return torch.nn.functional.interpolate(load_photograph()[None], (height, width))[0]


def of_torchvision(*sizes: tuple[int, int]) -> list[Any]:
    return [picture(*size) for size in sizes]


def of_detectron2(*sizes: tuple[int, int]) -> list[Any]:
    return [{"image": picture(*size) * 255, "height": 100, "width": 120} for size in sizes]


def detectron2_family(family: str) -> Callable[[], Any]:
    def build() -> Any:
        from detectron2_package import require_detectron2
        from small_detectron2 import small_detector

        require_detectron2()
        return copy.deepcopy(small_detector(family))

    return build


DETECTORS: dict[str, tuple[Callable[[], Any], Callable[..., list[Any]]]] = {
    "torchvision's Faster R-CNN": (lambda: copy.deepcopy(small_rcnn(FasterRCNN)), of_torchvision),
    "torchvision's Mask R-CNN": (lambda: copy.deepcopy(small_rcnn(MaskRCNN)), of_torchvision),
    "torchvision's SSD": (lambda: copy.deepcopy(small_one_stage("SSD")), of_torchvision),
    "Faster R-CNN": (detectron2_family("Faster R-CNN"), of_detectron2),
    "Keypoint R-CNN": (detectron2_family("Keypoint R-CNN"), of_detectron2),
    "RetinaNet": (detectron2_family("RetinaNet"), of_detectron2),
}
SIZES = ((192, 224), (192, 160), (300, 260), (224, 416), (170, 192), (192, 192))


def fields(one: Any) -> dict[str, Any]:
    """The tensors of an image's answer."""
    if "instances" not in one:
        return dict(one)
    found = one["instances"].get_fields()
    return {name: getattr(value, "tensor", value) for name, value in found.items()}


def assert_agree(actual: Any, expected: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        found, wanted = fields(one), fields(other)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            if name == "pred_keypoints":
                value, found[name] = value[..., :2], found[name][..., :2]
            elif value.dtype in (torch.int64, torch.bool):
                assert (found[name] != value).double().mean() <= 1e-3, name
                continue
            torch.testing.assert_close(found[name], value, atol=1e-2, rtol=1e-4, msg=name)


def count_of(answer: Any) -> int:
    return min(len(next(iter(fields(one).values()))) for one in answer)


def compiled_graphs(model: Any) -> Any:
    """The model under torch.compile, and a list that grows by one with each graph."""
    graphs: list[Any] = []
    fxtrt_backend = torch._dynamo.lookup_backend("fxtrt")

    def counting(graph: Any, inputs: Any, **options: Any) -> Any:
        graphs.append(graph)
        return fxtrt_backend(graph, inputs, **options)

    return torch.compile(model, backend=counting, options={"engine": "reference"}), graphs


@pytest.mark.parametrize("name", DETECTORS)
def test_one_graph_takes_all_sizes(name: str) -> None:
    build, inputs_of = DETECTORS[name]
    model = build()
    calls = [inputs_of(size) for size in SIZES]
    expected = [model(call) for call in calls]
    assert min(map(count_of, expected)) > 0
    prepare(model)
    fast, graphs = compiled_graphs(model)
    assert_agree(fast(calls[0]), expected[0])
    assert len(graphs) == 1
    for call, wanted in zip(calls, expected, strict=True):
        assert_agree(fast(call), wanted)
    assert len(graphs) <= 2


@pytest.mark.parametrize("name", ["torchvision's Mask R-CNN", "Faster R-CNN"])
def test_batches_share_a_graph(name: str) -> None:
    build, inputs_of = DETECTORS[name]
    model = build()
    calls = [inputs_of(*SIZES[i : i + count]) for i, count in ((0, 2), (2, 2), (1, 3), (0, 4))]
    expected = [model(call) for call in calls]
    prepare(model)
    fast, graphs = compiled_graphs(model)
    for call, wanted in zip(calls, expected, strict=True):
        assert_agree(fast(call), wanted)
    assert len(graphs) <= 2


def test_undo_gives_the_forward_back() -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))
    call = of_torchvision(SIZES[0])
    expected = model(call)
    undo = prepare(model)
    assert "forward" in vars(model)
    undo()
    undo()
    assert "forward" not in vars(model)
    actual = model(call)
    assert all(torch.equal(actual[0][key], value) for key, value in expected[0].items())


def test_preparing_twice_is_preparing_once() -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))
    call = of_torchvision(SIZES[0])
    expected = model(call)
    glue = (MultiScaleRoIAlign.forward, GeneralizedRCNNTransform.forward)
    undo = prepare(model)
    prepare(model)
    assert (MultiScaleRoIAlign.forward, GeneralizedRCNNTransform.forward) == glue
    fast, graphs = compiled_graphs(model)
    assert_agree(fast(call), expected)
    assert len(graphs) == 1
    undo()
    assert "forward" not in vars(model)


def test_training_runs_the_models_own_forward() -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 60.0, 60.0]]), "labels": torch.tensor([1])}]
    prepare(model)
    losses = model.train()(of_torchvision(SIZES[0]), targets)
    assert set(losses) == {
        *("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"),
    }
    model.eval()
    model.roi_heads.train()
    with pytest.raises(Exception, match="targets"):
        model(of_torchvision(SIZES[0]))


def test_a_child_that_was_replaced_is_used() -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))
    call = of_torchvision(SIZES[0])
    before = model(call)
    prepare(model)
    model.backbone = copy.deepcopy(model.backbone)
    model.backbone.first.weight.mul_(1.5)
    plain = copy.deepcopy(small_rcnn(FasterRCNN))
    plain.backbone = model.backbone
    expected = plain(call)
    assert not torch.equal(expected[0]["scores"], before[0]["scores"])
    assert_agree(model(call), expected)


@pytest.mark.parametrize(
    "call", [[torch.zeros(3, 3)], ["a.jpg"], None, [torch.ones(3, 8, 8).int()]]
)
def test_wrong_inputs_raise_what_the_model_raises(call: Any) -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))

    def error() -> Exception:
        try:
            model(call)
        except Exception as error:
            return error
        raise AssertionError("nothing was raised")

    expected = error()
    prepare(model)
    actual = error()
    assert (type(actual), str(actual)) == (type(expected), str(expected))


def test_a_prepared_detector_runs_with_gradients_enabled() -> None:
    for name in ("torchvision's Mask R-CNN", "Keypoint R-CNN"):
        build, inputs_of = DETECTORS[name]
        model = build()
        call = inputs_of(SIZES[0])
        expected = model(call)
        prepare(model)
        with torch.enable_grad():
            assert_agree(model(call), expected)


def test_two_prepared_models_of_one_class_keep_their_own_weights() -> None:
    models = [copy.deepcopy(small_rcnn(FasterRCNN)) for _ in range(2)]
    models[1].roi_heads.box_predictor.cls_score.weight.mul_(0.7)
    call = of_torchvision(SIZES[0])
    expected = [model(call) for model in models]
    assert not torch.equal(expected[0][0]["scores"], expected[1][0]["scores"])
    for model in models:
        prepare(model)
    fast = [compiled_graphs(model)[0] for model in models]
    for one, wanted in zip(fast * 2, expected * 2, strict=True):
        assert_agree(one(call), wanted)


def test_a_copy_of_a_prepared_model_has_its_own_weights() -> None:
    make, inputs = DETECTORS["torchvision's Faster R-CNN"]
    model = make()
    prepare(model)
    other = copy.deepcopy(model)
    for weight in other.parameters():
        weight.zero_()
    images = inputs((192, 224))
    expected = type(other).forward(other, images)
    assert_agree(other(images), expected)
    prepare(other)
    assert_agree(other(images), expected)
    assert not torch.equal(model(images)[0]["scores"], expected[0]["scores"])


def test_the_report_says_what_preparing_brings() -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))
    call = of_torchvision(SIZES[0])
    unprepared: Any = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    unprepared(call)
    said = "\n".join(fxtrt.report(unprepared).capture)
    advice = "call fxtrt.detection.prepare(model) before torch.compile, for one graph that serves"
    assert advice in said
    torch._dynamo.reset()
    prepare(model)
    prepared: Any = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    prepared(call)
    coverage = fxtrt.report(prepared)
    assert coverage.capture[0].startswith("captured by torch.compile in 1 graph")
    assert "prepare" not in "\n".join(coverage.capture)
    assert coverage.flops_share == 1.0


def test_a_prepared_detector_is_compiled_ahead_of_time_as_any_other() -> None:
    model = copy.deepcopy(small_rcnn(FasterRCNN))
    images = of_torchvision((96, 128))
    expected = model(images)
    undo = prepare(model)
    fast: Any = fxtrt.compile(model, (images,), engine="reference", cache_dir=None)
    undo()
    assert "core" in fxtrt.report(fast).capture[0]
    torch.testing.assert_close(fast(images)[0]["boxes"], expected[0]["boxes"], atol=1e-2, rtol=0)
    assert fast.forward.fallbacks == {}
