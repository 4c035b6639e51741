"""The example models: always the same, with the proportions of trained ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from fxtrt.errors import SettingsError
from fxtrt.examples import calibrate, load_example, load_photograph


def test_the_weights_are_the_same_each_time() -> None:
    example = load_example("resnet18")
    first, second, inputs = example.model, load_example("resnet18").model, example.inputs
    with torch.no_grad():
        assert torch.equal(first(*inputs), second(*inputs))


def test_batch_norms_normalise_their_input() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
    x = torch.randn(2, 3, 9, 9) * 7 + 3
    calibrate(model, (x,))
    with torch.no_grad():
        y = model(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y.mean(1), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std(1), torch.ones(8), atol=1e-3, rtol=0)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_norm_without_statistics_stays_as_it_is() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8)).eval()
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        before = model(x)
        calibrate(model, (x,))
        torch.testing.assert_close(model(x), before)


def test_a_detector_finds_much_and_ranks_it() -> None:
    example = load_example("fasterrcnn_mobilenet_v3_large_320_fpn")
    with torch.no_grad():
        (found,) = example.model(*example.inputs)
    assert len(found["boxes"]) == 100
    assert len(found["labels"].unique()) > 3
    assert found["scores"].max() > 2 * found["scores"].min()


def test_a_photograph_is_three_planes_in_0_to_1(tmp_path: Path) -> None:
    image = load_photograph()
    assert image.shape == (3, 600, 512)
    assert image.dtype == torch.float32
    assert image.min() >= 0
    assert image.max() <= 1
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"empty\.png is not an image"):
        load_photograph(tmp_path / "empty.png")


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'resnet50'"):
        load_example("resnet_50")
