"""JPEG and PNG files become upright uint8 tensors; harmful and damaged ones are refused early."""

from __future__ import annotations

import asyncio
import threading
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="Pillow is not installed")

from fuzzing import fuzz
from hypothesis import strategies as st
from PIL import Image, ImageOps
from png_bomb import bomb

from fxtrt.errors import ImageError, QueueFull
from fxtrt.serving import decode as decode_module
from fxtrt.serving.decode import Decoder, ImageLimits, decode

LIMITS = ImageLimits(bytes=100_000, pixels=10_000)


def picture(height: int = 20, width: int = 30) -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 5, rows + columns], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PNG = encoded(Image.fromarray(picture()))
JPEG = encoded(Image.fromarray(picture()), "JPEG", quality=95)


def test_a_png_keeps_its_pixels() -> None:
    pixels = decode(PNG, LIMITS)
    assert torch.equal(pixels, torch.from_numpy(picture()).permute(2, 0, 1))
    assert pixels.is_contiguous()


def test_a_jpeg_is_nearly_the_picture() -> None:
    gap = decode(JPEG, LIMITS).int() - torch.from_numpy(picture()).permute(2, 0, 1).int()
    assert gap.abs().float().mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(kind: str, orientation: int) -> None:
    image = Image.fromarray(picture())
    exif = image.getexif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert np.array_equal(decode(data, LIMITS).permute(1, 2, 0).numpy(), np.array(upright))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(np.full((4, 5), 77, np.uint8)), 77),
        (Image.fromarray(np.full((4, 5), 40_000, np.uint16)), 156),
        (Image.fromarray(np.full((4, 5), 65_535, np.uint16)), 255),
        (Image.new("1", (5, 4), 1), 255),
        (Image.new("P", (5, 4), 0), 0),
        (Image.new("LA", (5, 4), (90, 10)), 90),
        (Image.new("RGBA", (5, 4), (60, 60, 60, 0)), 60),
    ],
    ids=["grey", "16 bits", "16 bits, white", "1 bit", "palette", "grey with alpha", "alpha"],
)
def test_every_kind_of_pixel_becomes_rgb(image: Image.Image, expected: int) -> None:
    assert torch.equal(
        decode(encoded(image), LIMITS), torch.full((3, 4, 5), expected, dtype=torch.uint8)
    )


def test_print_colours_become_rgb() -> None:
    data = encoded(Image.new("CMYK", (5, 4), (0, 255, 255, 0)), "JPEG")
    red = decode(data, LIMITS)[:, 0, 0].tolist()
    assert red[0] > 200
    assert max(red[1:]) < 60


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 415, "neither a JPEG nor a PNG"),
        (b"<html>", 415, "neither a JPEG nor a PNG"),
        (encoded(Image.fromarray(picture()), "GIF"), 415, "neither a JPEG nor a PNG"),
        (encoded(Image.fromarray(picture()), "TIFF"), 415, "neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff", 400, "damaged"),
        (b"\x89PNG\r\n\x1a\n", 400, "damaged"),
        (PNG[: len(PNG) // 2], 400, "truncated"),
        (JPEG[: len(JPEG) // 2], 400, "truncated"),
        (bytes(100_001), 413, "100001 bytes, and 100000 are allowed"),
        (bomb(10_000, 10_000), 413, "10000 x 10000 pixels, and 10000 are allowed"),
        (bomb(2**31 - 1, 2**31 - 1), 413, "pixels, and 10000 are allowed"),
        (bomb(100, 100), 400, "damaged or truncated"),
        (JPEG + b"\xff\xda" * 101, 400, "more than 100 scans"),
    ],
)
def test_what_is_no_good_image_is_refused(data: bytes, status: int, message: str) -> None:
    with pytest.raises(ImageError, match=message) as refused:
        decode(data, LIMITS)
    assert refused.value.status == status


def test_100_megapixels_are_refused_by_default_before_they_take_memory() -> None:
    with pytest.raises(ImageError, match="10000 x 10000"):
        decode(bomb(10_000, 10_000), ImageLimits())


@pytest.mark.filterwarnings("ignore:::PIL")  # It warns of damaged EXIF data, among others.
def test_damaged_files_are_decoded_or_refused() -> None:
    def check(data: bytes, changes: list[tuple[int, int]], end: int) -> None:
        damaged = bytearray(data)
        for at, value in changes:
            damaged[at % len(damaged)] = value
        try:
            pixels = decode(bytes(damaged[: len(damaged) - end]), LIMITS)
        except ImageError as error:
            statuses.add(error.status)
        else:
            assert pixels.dtype == torch.uint8
            assert pixels.shape[0] == 3
            statuses.add(200)

    statuses: set[int] = set()
    changes = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6)
    fuzz(check, st.sampled_from([PNG, JPEG]), changes, st.integers(0, 40), examples=300)
    assert {200, 400} <= statuses <= {200, 400, 413, 415}


def test_a_decoder_works_in_threads_of_its_own_and_refuses_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, names = threading.Event(), []

    def slow(data: bytes, *_: Any) -> torch.Tensor:
        names.append(threading.current_thread().name)
        assert go_on.wait(5)
        return torch.tensor(list(data))

    monkeypatch.setattr(decode_module, "decode", slow)
    decoder = Decoder(threads=1, most_waiting=1)
    first, second = decoder.submit(b"\x01"), decoder.submit(b"\x02")
    with pytest.raises(QueueFull):
        decoder.submit(b"\x03")
    go_on.set()
    assert (first.result(5).item(), second.result(5).item()) == (1, 2)
    assert asyncio.run(decoder.decode(b"\x04")).item() == 4
    decoder.close()
    assert all(name.startswith("fxtrt-decode") for name in names)


def test_the_gpu_decodes_where_it_can_and_the_cpu_judges_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    io = pytest.importorskip("torchvision.io")
    asked: list[Any] = []

    def of_gpu(raw: torch.Tensor, mode: Any, device: Any) -> torch.Tensor:
        asked.append(device)
        if len(raw) == len(JPEG):
            return torch.full((3, 2, 2), 9, dtype=torch.uint8)
        raise RuntimeError("nvjpeg does not take it")

    monkeypatch.setattr(io, "decode_jpeg", of_gpu)
    gpu = torch.device("cuda")
    assert decode_module._decoded_by_gpu(JPEG, gpu) is not None
    assert decode_module._decoded_by_gpu(JPEG[:-2], gpu) is None
    assert decode_module._decoded_by_gpu(JPEG + b"rest", gpu) is None
    assert asked == [gpu, gpu]
