"""A file that serves alone gives a server its model, its limits, and what becomes of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifact_models import CASES, case
from detectron2_package import require_detectron2
from elsewhere import assert_equal
from PIL import Image
from served_files import OPTIONS, Means, change_weights, means_file
from torch import nn

import fxtrt
from fxtrt.detection.detectron2.results import plain
from fxtrt.errors import ArtifactError, CallError, ProtocolError, ServingError, SettingsError
from fxtrt.serving.detections import as_json
from fxtrt.serving.pictures import Pictures
from fxtrt.serving.serve_options import ServeOptions
from fxtrt.serving.served_file import open_file
from fxtrt.serving.stacked import Stacked
from fxtrt.serving.tuned_file import write_tuned
from fxtrt.serving.tuner import Candidate, Trial, Tuned

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("served") / "means.fxtrt"
    return means_file(path, slots=3)


def test_a_model_of_one_tensor_answers_a_list_of_images(means: Path) -> None:
    served = open_file(means)
    assert served.max_batch == 4
    assert [tuple(image.shape) for image in served.example] == [(3, 6, 8)] * 2
    images = [torch.full((3, 6, 8), value) for value in (0.25, 0.5, 0.75)]
    answers = served.model(images)
    assert [round(float(answer["mean"]), 4) for answer in answers] == [0.25, 0.5, 0.75]
    assert answers[1]["both"].tolist() == pytest.approx([0.5, -0.5])
    with fxtrt.Server(served.model, max_batch=served.max_batch) as server:
        assert server.settings.workers == 3
        futures = [server.submit(image) for image in images]
        assert [float(f.result()["mean"]) for f in futures] == pytest.approx([0.25, 0.5, 0.75])
        with pytest.raises(CallError, match="has shape"):
            server.submit(torch.zeros(3, 9, 9)).result()


def test_pictures_get_the_size_that_a_classifier_was_compiled_for(means: Path) -> None:
    pictures = open_file(means).pictures
    made = pictures(torch.full((3, 60, 80), 51, dtype=torch.uint8))
    assert (tuple(made.shape), made.dtype) == ((3, 6, 8), torch.float32)
    assert float(made.mean()) == pytest.approx(0.2)
    usual = Pictures(takes="tensor", mean=(0.1, 0.2, 0.3), std=(2.0, 1.0, 0.5), channels="bgr")
    colours = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    made = usual(colours)[:, 0, 0]
    assert made.tolist() == pytest.approx([(1 - 0.1) / 2, 0.2 - 0.2, (0 - 0.3) / 0.5])


def test_a_file_that_answers_otherwise_is_not_served(means: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.fxtrt"
    path.write_bytes(means.read_bytes())
    change_weights(path)
    with pytest.raises(ArtifactError, match=r"otherwise than when it was saved: (mean|both)"):
        open_file(path)
    (answer,) = open_file(path, verify=False).model([torch.full((3, 6, 8), 0.5)])
    assert float(answer["mean"]) == pytest.approx(0.75)


def test_what_no_server_can_ask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.fxtrt"
    fast = fxtrt.compile(Means().eval(), (torch.rand(2, 3, 6, 8),), **OPTIONS, min_cluster_size=1)
    fxtrt.save(fast, path, weights=True)
    with pytest.raises(ArtifactError, match="takes 2 images or more at once"):
        open_file(path)
    nested = fxtrt.compile(case("nested"), CASES["nested"][2][0], **OPTIONS, min_cluster_size=1)
    fxtrt.save(nested, path, weights=True)
    with pytest.raises(ArtifactError, match="is no model of images"):
        open_file(path)

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(0)

    with pytest.raises(ServingError, match=r"2 images with an output \(3, 6, 8\)"):
        Stacked(Sum())([torch.rand(3, 6, 8)] * 2)


def test_detectron2s_pictures_are_resized_as_by_its_own_rule() -> None:
    pictures = Pictures(takes="detectron2", channels="bgr", resize=(80, 133))
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 200, 300), np.uint8))
    smooth = torch.nn.functional.avg_pool2d(noise.float(), 5, 1, 2).byte()
    # Height and width of pictures, and what `ResizeShortestEdge` makes of them.
    for sides, expected in {
        (200, 300): (80, 120),
        (200, 120): (133, 80),
        (50, 300): (22, 133),
        (40, 60): (80, 120),
    }.items():
        picture = smooth[:, : sides[0], : sides[1]]
        made = pictures(picture)
        assert tuple(made["image"].shape[1:]) == expected
        assert (made["height"], made["width"]) == sides
        rows = np.ascontiguousarray(picture.flip(0).permute(1, 2, 0).numpy())
        by_pillow = Image.fromarray(rows).resize(expected[::-1], Image.Resampling.BILINEAR)
        gap = made["image"].permute(1, 2, 0) - torch.from_numpy(np.array(by_pillow)).float()
        assert float(gap.abs().max()) <= 1.0
    with pytest.raises(ProtocolError, match="too narrow"):
        pictures(torch.zeros(3, 300, 1, dtype=torch.uint8)[:, :, :1].expand(3, 300, 1))
    ready: Any = torch.rand(3, 5, 5)
    assert pictures(ready) is ready


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_a_file_of_detectron2_gets_its_dicts(tmp_path: Path) -> None:
    require_detectron2()
    from detectron2_cores import core_of

    _, fast = core_of("Faster R-CNN")
    fxtrt.save(fast, tmp_path / "model.fxtrt", weights=True)
    served = open_file(tmp_path / "model.fxtrt")
    assert served.pictures == Pictures(takes="detectron2", channels="bgr", resize=(800, 1333))
    pictures = replace(served.pictures, resize=(192, 224))
    colours = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]
    asked = pictures(colours.expand(3, 96, 100).contiguous())
    assert asked["image"].shape == (3, 192, 200)
    assert asked["image"][:, 0, 0].tolist() == [30, 20, 10]
    (answer,), (expected,) = served.model([asked]), fast([asked])
    assert_equal(answer, plain(expected))
    with fxtrt.Server(served.model) as server:
        outputs = as_json(server.submit(asked).result())
    assert outputs["boxes"] == answer["boxes"].tolist()


def test_settings_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(SettingsError, match="resizes images itself"):
        Pictures(takes="torchvision", resize=(1, 1))
    with pytest.raises(SettingsError, match="mean and std are for classifiers"):
        Pictures(takes="detectron2", mean=(0.0, 0.0, 0.0))
    with pytest.raises(SettingsError, match="must not be 0"):
        Pictures(takes="tensor", std=(1.0, 0.0, 1.0))


def test_what_was_tuned_is_used_unless_an_option_says_otherwise(tmp_path: Path) -> None:
    path = means_file(tmp_path / "means.fxtrt", slots=1)
    chosen = Candidate(slots=3, max_batch=2, max_delay=0.25)
    write_tuned(path, Tuned([Trial(chosen, 100.0, 0.01, 0.02)], 0.05))
    for more, expected in [
        ({}, (3, 2, 0.25)),
        ({"slots": 2, "max_delay": 0.0}, (2, 2, 0.0)),
        ({"tuned": False}, (1, 4, 0.0)),
    ]:
        options: Any = more
        asked = ServeOptions(path=str(path), **options)
        with asked.server(asked.open()) as server:
            settings = server.settings
        assert (settings.workers, settings.max_batch, settings.max_delay) == expected
