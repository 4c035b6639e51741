"""The example models: always the same, with the proportions of trained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from fxtrt.diagnostics.example_models import (
    calibrate,
    load_example,
    load_photograph,
)
from fxtrt.errors import SettingsError


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


def test_grey_of_16_bits_keeps_its_brightness(tmp_path: Path) -> None:
    grey = np.array([[0, 32768, 65535], [1, 256, 40000]], np.uint16)
    expected = torch.tensor(grey.astype(np.float32) / 65535).expand(3, 2, 3)
    for suffix in ("png", "tif", "pgm"):
        Image.fromarray(grey).save(file := tmp_path / f"grey.{suffix}")
        torch.testing.assert_close(load_photograph(file), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_other_kinds_of_image_keep_theirs(mode: str, tmp_path: Path) -> None:
    file = tmp_path / ("grey.tif" if mode == "CMYK" else "grey.png")
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(file)
    torch.testing.assert_close(load_photograph(file), torch.ones(3, 2, 3))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("orientation", "size", "corners"),
    [
        (1, (3, 2), [0.0, 0.2, 0.4, 1.0]),
        (3, (3, 2), [1.0, 0.4, 0.2, 0.0]),
        (6, (2, 3), [0.4, 0.0, 1.0, 0.2]),
        (8, (2, 3), [0.2, 1.0, 0.0, 0.4]),
    ],
)
def test_a_photograph_is_upright(
    depth: int,
    orientation: int,
    size: tuple[int, int],
    corners: list[float],
    tmp_path: Path,
) -> None:
    """As a camera stores it, and says in EXIF data how it was held."""
    stored = np.array([[0.0, 0.0, 0.2], [0.4, 0.0, 1.0]])
    white = 255 if depth == 8 else 65535
    image = Image.fromarray((stored * white).astype(np.uint8 if depth == 8 else np.uint16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(file := tmp_path / "held.png", exif=exif)
    pixels = load_photograph(file)
    assert (pixels.shape[2], pixels.shape[1]) == size
    found = [float(pixels[0, y, x]) for y in (0, -1) for x in (0, -1)]
    assert found == pytest.approx(corners, abs=1e-4)


def damaged(kind: str, folder: Path) -> Path:
    file = folder / f"{kind}.{'jpg' if 'jpeg' in kind else 'png'}"
    Image.effect_noise((64, 64), 50).save(file)
    whole = file.read_bytes()
    cut = {"cut jpeg": whole[:-300], "cut png": whole[:-300], "text": b"not an image"}
    broken = whole[:30] + bytes(9) + whole[39:]
    file.write_bytes(cut.get(kind, broken))
    return file


@pytest.mark.parametrize("kind", ["cut jpeg", "cut png", "text", "broken png"])
def test_a_damaged_image_is_named(kind: str, tmp_path: Path) -> None:
    file = damaged(kind, tmp_path)
    with pytest.raises(SettingsError, match=f"{file.name} is not an image that Pillow can read"):
        load_photograph(file)


def test_an_image_that_would_fill_the_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Image.new("L", (64, 64)).save(file := tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SettingsError, match=r"bomb\.png is not an image .* exceeds limit"):
        load_photograph(file)


def test_an_image_whose_white_is_unknown_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 3), np.float32)).save(file := tmp_path / "float.tif")
    with pytest.raises(SettingsError, match=r"float\.tif holds numbers of 32 bits"):
        load_photograph(file)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'resnet50'"):
        load_example("resnet_50")
