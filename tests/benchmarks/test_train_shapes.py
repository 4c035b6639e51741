"""Detectors learn from pictures of shapes, and what was learned is written and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from shape_detectors import ARCHITECTURES, Plan
from shape_pictures import generate
from torch import nn
from train_shapes import Trained, judge, load_trained, main, train, write
from trained_detector import LEAST_AP, trained_detector

import fxtrt

QUICK = Plan(pictures=4, steps=3, batch=2, rate=1e-3)
NARROW = (
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.FPN.OUT_CHANNELS", 32),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 64, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64),
)
"""Detectron2's models with few channels."""


def short(name: str, plan: Plan = QUICK) -> Any:
    architecture = ARCHITECTURES[name]
    return replace(architecture, plan=plan, task=replace(architecture.task, size=(96, 128)))


@pytest.mark.slow
def test_a_small_detector_learns_to_find_shapes() -> None:
    trained = trained_detector()
    eager = judge(trained, trained.model)
    assert eager >= LEAST_AP
    example = trained.architecture.inputs(trained.pictures[:1], "cpu")
    fast = fxtrt.compile(trained.model, (example,), engine="reference")
    report = fxtrt.report(fast)
    assert report.flops_share > 0.95
    assert judge(trained, fast) == pytest.approx(eager, abs=1e-6)
    assert [row.fallbacks for row in fxtrt.report(fast).runtime] == [()]


def test_training_gives_the_same_weights_each_time_and_they_are_read_again(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    first = train(short("small"), seed=5)
    try:
        torch.set_num_threads(threads + 1)
        second = train(short("small"), seed=5)
    finally:
        torch.set_num_threads(threads)
    write(first, tmp_path, ap=0.0, seconds=1.0)
    loaded = load_trained(tmp_path)
    for name, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name
        assert torch.equal(loaded.model.state_dict()[name], value), name
    assert not loaded.model.training
    assert loaded.architecture == first.architecture
    assert torch.equal(loaded.pictures[7].image, first.pictures[7].image)
    annotations = json.loads((tmp_path / "annotations.json").read_text())
    assert len(annotations["images"]) == len(first.pictures)


def test_the_pictures_of_validation_are_others_than_those_of_training() -> None:
    trained = train(short("small"))
    seen = {one.image.numpy().tobytes() for one in generate(trained.architecture.task, 4, seed=0)}
    assert not seen & {one.image.numpy().tobytes() for one in trained.pictures}


class Oracle(nn.Module):
    """Answers with the annotations of one picture after the other."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        super().__init__()
        self.answers = iter(answers)

    def forward(self, inputs: Any) -> Any:
        return [next(self.answers)]


def test_a_model_is_judged_by_the_pictures_that_it_did_not_see() -> None:
    architecture = short("small")
    pictures = generate(architecture.task, 6, seed=9)
    truth = architecture.truth(pictures)
    answers = [{**one, "scores": torch.ones(len(one["labels"]))} for one in truth]
    oracle = Oracle(answers)
    trained = Trained(architecture, oracle, pictures)
    assert judge(trained, oracle) == pytest.approx(1.0)


@pytest.mark.detectron2
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")  # Detectron2 0.4's anchors.
@pytest.mark.parametrize("name", [one for one in ARCHITECTURES if one != "small"])
def test_detectron2_models_learn(name: str, tmp_path: Path) -> None:
    require_detectron2()
    plan = Plan(pictures=2, steps=20, batch=2, rate=3e-3)
    trained = train(short(name, plan), options=NARROW)
    write(trained, tmp_path, ap=0.0, seconds=1.0)
    loaded = load_trained(tmp_path)
    inputs = trained.architecture.inputs(trained.pictures[:1], "cpu")
    with torch.no_grad():
        (actual,), (expected,) = loaded.model(inputs), trained.model(inputs)
    boxes, wanted = (one["instances"].pred_boxes.tensor for one in (actual, expected))
    assert torch.equal(boxes, wanted)
    assert 0.0 <= judge(replace(trained, pictures=trained.pictures[:2]), trained.model) <= 1.0
    assert loss_of(trained, trained.model) < 0.85 * loss_of(trained, untrained(trained))


def untrained(trained: Trained) -> Any:
    """Return the same architecture as it was before training."""
    torch.manual_seed(trained.seed)
    model: Any = trained.architecture.build(trained.architecture.task, NARROW)
    if hasattr(trained.model, "loss_normalizer"):  # RetinaNet's, a mean over the steps so far.
        model.loss_normalizer = trained.model.loss_normalizer
    return model


def loss_of(trained: Trained, model: nn.Module) -> float:
    """Return the loss on the pictures of training."""
    torch.manual_seed(0)  # for the anchors that count
    architecture = trained.architecture
    pictures = generate(architecture.task, architecture.plan.pictures, seed=trained.seed)
    with torch.no_grad():
        losses = architecture.losses(model.train(), pictures, "cpu")
    return float(sum(losses.values()))


def test_the_script_fails_where_the_detector_is_too_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ["--pictures", "2", "--steps", "1", "--batch", "1", "--least-ap", "0.5"]
    monkeypatch.setattr("sys.argv", ["train_shapes.py", f"--out={tmp_path}", *plan])
    with pytest.raises(SystemExit, match=r"box AP is 0\.0.*, expected at least 0\.5"):
        main()
    assert json.loads((tmp_path / "training.json").read_text())["plan"]["steps"] == 1
