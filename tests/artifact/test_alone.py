"""A file with weights answers as the compiled model, in a process without the model's code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from artifact_models import CASES, Cut, case
from elsewhere import answers_elsewhere, assert_equal
from torch import nn

import fxtrt
from fxtrt.artifact.archive import ArtifactFile
from fxtrt.artifact.verify import verify
from fxtrt.detection import TooManyCandidates
from fxtrt.detection.core_batch import counted
from fxtrt.errors import ArtifactError, CallError, SettingsError
from fxtrt.runtime.all_candidates import with_all_candidates

pytest.importorskip("torchvision", reason="torchvision is not installed")

from small_torchvision import images, small_one_stage, small_rcnn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

pytestmark = pytest.mark.usefixtures("no_grad")

TORCHVISION: dict[str, Callable[[], Any]] = {
    "Faster R-CNN": lambda: small_rcnn(FasterRCNN),
    "Mask R-CNN": lambda: small_rcnn(MaskRCNN),
    "Keypoint R-CNN": lambda: small_rcnn(KeypointRCNN),
    "RetinaNet": lambda: small_one_stage("RetinaNet"),
    "FCOS": lambda: small_one_stage("FCOS"),
    "SSD": lambda: small_one_stage("SSD"),
}
OPTIONS: dict[str, Any] = {"engine": "reference", "cache_dir": None}


def saved(model: Any, path: Path, example: Any, **options: Any) -> Any:
    """The compiled model, after saving it."""
    fast = fxtrt.compile(model, (example,), **OPTIONS, **options)
    fxtrt.save(fast, path, weights=True)
    return fast


@pytest.fixture(scope="module")
def faster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file of a Faster R-CNN for one or two images, and the compiled model."""
    path: Path = tmp_path_factory.mktemp("alone") / "faster.fxtrt"
    return path, saved(small_rcnn(FasterRCNN), path, images(1), most_images=2)


@pytest.mark.slow
def test_torchvisions_detectors_need_no_code_of_theirs(tmp_path: Path) -> None:
    calls = [images(1), images(2)]
    paths, expected = [], []
    for name, model in TORCHVISION.items():
        paths.append(tmp_path / f"{name}.fxtrt")
        fast = saved(model(), paths[-1], images(1))
        expected.append([fast(call) for call in calls])
        assert len(expected[-1][0][0]["boxes"]) > 0
    assert_equal(answers_elsewhere(paths, [calls] * len(paths), tmp_path), expected)


def test_a_file_is_whole(faster: tuple[Path, Any]) -> None:
    path, fast = faster
    loaded: Any = fxtrt.load(path)
    assert type(loaded).__module__.startswith("fxtrt.")
    assert loaded.state_dict().keys() == fast.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, fast.state_dict()[name])
    report = fxtrt.report(loaded)
    assert report.flops_share == 1.0
    fxtrt.warm_up(loaded, (images(1),))
    assert verify(path).agrees
    with pytest.raises(ArtifactError, match="copy that one"):
        fxtrt.save(loaded, path.parent / "again.fxtrt", weights=True)
    assert_equal(fxtrt.load(path, small_rcnn(FasterRCNN))(images(1)), loaded(images(1)))


def test_a_call_that_does_not_fit_is_refused(faster: tuple[Path, Any], tmp_path: Path) -> None:
    loaded: Any = fxtrt.load(faster[0])
    for call, message in [
        ([torch.zeros(3, 40, 40, dtype=torch.uint8)], "is torch.uint8, and the model takes floats"),
        ([torch.zeros(40, 40)], r"has the shape \(40, 40\)"),
        ([torch.zeros(3, 0, 40)], r"has the shape \(3, 0, 40\)"),
        (["image"], "an image is a str"),
        (3, "another form"),
    ]:
        with pytest.raises(CallError, match=message):
            loaded(call)
    with pytest.raises(CallError, match="no images"):
        loaded([])
    with torch.autocast("cpu"), pytest.raises(CallError, match="autocast is"):
        loaded(images(1))
    assert sum(loaded.forward.fallbacks.values()) == 7
    static = fxtrt.compile(small_rcnn(FasterRCNN), (images(1),), dynamic_shapes={}, **OPTIONS)
    fxtrt.save(static, tmp_path / "static.fxtrt", weights=True)
    with pytest.raises(CallError, match=r"has shape \(1, 3, 160, \d+\), expected 1x3x"):
        fxtrt.load(tmp_path / "static.fxtrt")([torch.rand(3, 80, 30)])


def test_too_many_candidates_are_looked_at_again(
    faster: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fast = faster
    loaded: Any = fxtrt.load(path)
    summaries: list[torch.Tensor] = []

    def once(summary: torch.Tensor) -> list[list[int]]:
        summaries.append(summary)
        if len(summaries) == 1:
            raise TooManyCandidates
        return counted(summary)

    expected = fast(images(1))
    monkeypatch.setattr("fxtrt.detection.torchvision.answers.counted", once)
    assert_equal(loaded(images(1)), expected)
    assert loaded.forward.fallbacks == {"more candidates than the core looks at": 1}
    before, after = (
        [node.args[-2] for node in gm.graph.nodes if "box_detections" in str(node.target)]
        for gm in (loaded.forward.graph, with_all_candidates(loaded.forward.graph))
    )
    assert (before, after) == ([2048], [2**31 - 1])


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.second.load_state_dict(self.first.state_dict())
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)  # type: ignore[operator]  # a buffer
        result: torch.Tensor = (self.first(x).relu() + self.second(x)).mean((2, 3))
        return result


def test_a_classifier_is_called_as_it_was_compiled(tmp_path: Path) -> None:
    path, x = tmp_path / "model.fxtrt", torch.rand(2, 3, 8, 8)
    fast = saved(Classifier().eval(), path, x)
    loaded = fxtrt.load(path)
    assert torch.equal(loaded(x), fast(x))
    with ArtifactFile(path) as file:
        stored = safetensors.torch.load(file.read("weights.safetensors"))
    assert sorted(stored) == ["calls", "first.bias", "first.weight"]
    assert loaded.get_buffer("calls").item() == 1
    assert loaded.get_parameter("first.bias") is not loaded.get_parameter("second.bias")
    with pytest.raises(CallError, match="has shape"):
        loaded(torch.rand(3, 3, 8, 8))
    assert verify(path).agrees


@pytest.mark.parametrize("name", ["static", "dynamic", "nested", "selecting"])
def test_any_graph_of_the_whole(name: str, tmp_path: Path) -> None:
    _, sizes, calls = CASES[name]
    fast = fxtrt.compile(case(name), calls[0], dynamic_shapes=sizes, **OPTIONS, min_cluster_size=1)
    fxtrt.save(fast, tmp_path / "model.fxtrt", weights=True)
    loaded = fxtrt.load(tmp_path / "model.fxtrt")
    for call in calls:
        assert_equal(loaded(*call), fast(*call))
    assert verify(tmp_path / "model.fxtrt").agrees


class Mine(GeneralizedRCNNTransform):  # type: ignore[misc]  # untyped
    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return super().normalize(image) * 1.0  # type: ignore[no-any-return]  # untyped


def test_what_needs_its_code_is_not_saved(tmp_path: Path, faster: tuple[Path, Any]) -> None:
    path = tmp_path / "model.fxtrt"
    parts = fxtrt.compile(Cut().eval(), CASES["parts"][2][0], **OPTIONS, min_cluster_size=1)
    with pytest.raises(ArtifactError, match="captured in parts"):
        fxtrt.save(parts, path, weights=True)
    model = small_rcnn(FasterRCNN)
    before = model.transform
    model.transform = Mine(128, 160, before.image_mean, before.image_std).eval()
    try:
        own = fxtrt.compile(model, (images(1),), **OPTIONS)
        with pytest.raises(ArtifactError, match="Mine reads images in a way of its own"):
            fxtrt.save(own, path, weights=True)
    finally:
        model.transform = before
    fxtrt.save(faster[1], path)
    with pytest.raises(ArtifactError, match=r"no weights: give fxtrt.load the model"):
        fxtrt.load(path)
    with pytest.raises(SettingsError, match="has no answers='detectron2'"):
        fxtrt.load(faster[0], answers="detectron2")
    with pytest.raises(SettingsError, match="may be 'plain' or"):
        fxtrt.load(faster[0], answers="instances")  # type: ignore[arg-type]  # that is the point
