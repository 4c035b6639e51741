"""Detectron2's own ways to call a model work unchanged around a compiled one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2

import fxtrt
from fxtrt.numerics.compare import compare, fields_of

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

OPTIONS = (
    *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 30, "TEST.DETECTIONS_PER_IMAGE", 10),
    *("INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 224, "MODEL.DEVICE", "cpu"),
    *("MODEL.WEIGHTS", ""),
)


@cache
def predictors() -> tuple[Any, Any]:
    """Detectron2's predictor for small pictures, and one whose model is compiled."""
    require_detectron2()
    from detectron2 import model_zoo
    from detectron2.engine import DefaultPredictor

    from fxtrt.diagnostics.example_models import calibrate

    cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    cfg.merge_from_list(list(OPTIONS))
    torch.manual_seed(0)
    plain, compiled = DefaultPredictor(cfg), DefaultPredictor(cfg)
    image = torch.from_numpy(picture(128, 160)).float().permute(2, 0, 1)
    example = ([{"image": image, "height": 480, "width": 600}],)
    with torch.no_grad():
        calibrate(plain.model, example)
    compiled.model = fxtrt.compile(plain.model, example, engine="reference")
    return plain, compiled


def picture(height: int, width: int) -> Any:
    """A photograph as OpenCV reads one: bytes, height and width first."""
    from fxtrt.diagnostics.example_models import load_photograph

    image = torch.nn.functional.interpolate(load_photograph()[None], (height, width))[0]
    return (image * 255).byte().permute(1, 2, 0).numpy()


@pytest.fixture(autouse=True)
def no_fallback() -> Iterator[None]:
    _, compiled = predictors()
    compiled.model.forward.fallbacks.clear()
    yield
    assert compiled.model.forward.fallbacks == {}


def assert_same(actual: Any, expected: Any) -> None:
    assert len(expected["instances"]) == 10
    assert actual["instances"].image_size == expected["instances"].image_size
    for difference in compare(actual, expected):
        assert difference.same_count, difference
        assert difference.largest <= max(difference.tolerance, 1e-2), difference


@pytest.mark.parametrize("size", [(480, 600), (300, 240), (97, 64), (250, 333)])
def test_the_default_predictor(size: tuple[int, int]) -> None:
    plain, compiled = predictors()
    assert_same(compiled(picture(*size)), plain(picture(*size)))


def test_engines_do_all_the_work_also_from_a_file(tmp_path: Path) -> None:
    plain, compiled = predictors()
    coverage = fxtrt.report(compiled.model)
    assert coverage.flops_share == 1.0
    assert "capture" not in {row.code for row in coverage.rejections}
    fxtrt.save(compiled.model, tmp_path / "detector.fxtrt")
    loaded: Any = fxtrt.load(tmp_path / "detector.fxtrt", plain.model)
    image = torch.from_numpy(picture(200, 160)).permute(2, 0, 1)
    call = [{"image": image, "height": 400, "width": 300}]
    with torch.no_grad():
        (actual,), (expected,) = loaded(call), compiled.model(call)
    for field, value in fields_of(expected["instances"]).items():
        assert torch.equal(fields_of(actual["instances"])[field], value)
    assert loaded.forward.fallbacks == {}


def test_an_evaluation_loop() -> None:
    from detectron2.evaluation import DatasetEvaluator, inference_on_dataset

    class Collected(DatasetEvaluator):  # type: ignore[misc]  # untyped
        def reset(self) -> None:
            self.found: list[Any] = []

        def process(self, inputs: Any, outputs: Any) -> None:
            self.found += outputs

        def evaluate(self) -> list[Any]:
            return self.found

    plain, compiled = predictors()
    data = [
        [
            {
                "image": torch.from_numpy(picture(height, width)).permute(2, 0, 1),
                "file_name": f"{number}.jpg",
                "image_id": number,
                "height": 2 * height,
                "width": 2 * width,
            }
        ]
        for number, (height, width) in enumerate([(128, 160), (160, 128), (112, 224)])
    ]
    evaluator = Collected()
    expected = inference_on_dataset(plain.model, data, evaluator)
    actual = inference_on_dataset(compiled.model, data, evaluator)
    assert len(actual) == 3
    for a, e in zip(actual, expected, strict=True):
        assert_same(a, e)


def test_training_mode_is_the_original_until_eval() -> None:
    plain, compiled = predictors()
    model = compiled.model.train()
    try:
        with pytest.raises(Exception, match=r"(?i)instances|targets|gt"):
            model([{"image": torch.rand(3, 128, 160)}])
        assert list(model.forward.fallbacks) == ["the module is in training mode"]
    finally:
        model.eval()
        model.forward.fallbacks.clear()
    assert_same(compiled(picture(128, 160)), plain(picture(128, 160)))
