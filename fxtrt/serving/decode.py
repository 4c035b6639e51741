"""Decodes JPEG and PNG bytes into (3, H, W) uint8 tensors, and refuses what would do harm."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ..errors import ImageError, QueueFull, ServingError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["Decoder", "ImageLimits", "decode", "oriented"]

_T = TypeVar("_T")

log = logging.getLogger(__name__)

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_MOST_SCANS = 100
"""A progressive JPEG has about ten. Thousands of empty ones keep a decoder busy for minutes."""
_ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Limits on an image. Both are checked before anything is decoded.

    bytes:  the size of the file.
    pixels: width times height. A decoded image takes three bytes for each, for a while six.
    """

    bytes: int = 20 << 20
    pixels: int = 50_000_000


def decode(data: bytes, limits: ImageLimits, device: torch.device | None = None) -> Tensor:
    """Return the pixels of a JPEG or PNG file as (3, H, W) uint8, turned upright as EXIF says.

    Grey images become RGB, transparency is dropped, and 16 bits are rounded to 8.

    Args:
        device: where the tensor is to be. A GPU decodes JPEG files itself where torchvision can,
            which may differ from the CPU by a few levels.

    Raises:
        ImageError: it is damaged (status 400), too large (413) or of another format (415).
        ServingError: Pillow is not installed.
    """
    image = _opened(data, limits)
    pixels = None
    if device is not None and device.type == "cuda" and data.startswith(_JPEG):
        pixels = _decoded_by_gpu(data, device)
    if pixels is None:
        pixels = _loaded(image)
    upright = oriented(pixels, _orientation(image)).contiguous()
    return upright if device is None else upright.to(device)


def oriented(pixels: Tensor, orientation: int) -> Tensor:
    """Turn and mirror a (3, H, W) image as the EXIF orientation, 1 to 8, says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation)
    return pixels if flips is None else pixels.flip(flips)


class Decoder:
    """Decodes images in threads of its own, away from those that wait for clients and for GPUs."""

    def __init__(
        self,
        *,
        threads: int = 4,
        most_waiting: int = 256,
        limits: ImageLimits | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Decode `threads` images at once, and refuse more than `most_waiting` others."""
        self.limits = ImageLimits() if limits is None else limits
        self.device = device
        self._most = threads + most_waiting
        self._count = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, "fxtrt-decode")

    def submit(self, data: bytes) -> Future[Tensor]:
        """Let a file be decoded as by `decode`.

        Raises:
            QueueFull: too many wait already.
        """
        return self._submit(decode, data, self.limits, self.device)

    async def decode(self, data: bytes) -> Tensor:
        """Return the pixels of a file; errors are those of `submit` and `decode`."""
        return await asyncio.wrap_future(self.submit(data))

    async def run(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Return the result of other work with images, done in the same threads.

        Raises:
            QueueFull: too much waits already.
        """
        return await asyncio.wrap_future(self._submit(call, *arguments))

    def close(self) -> None:
        """End the threads; images that wait are not decoded."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, call: Callable[..., _T], *arguments: Any) -> Future[_T]:
        with self._lock:
            if self._count >= self._most:
                raise QueueFull(f"{self._count} images are being decoded already: try again in 1 s")
            self._count += 1
        try:
            future = self._pool.submit(call, *arguments)
        except BaseException:
            self._done()
            raise
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Any = None) -> None:
        with self._lock:
            self._count -= 1


def _opened(data: bytes, limits: ImageLimits) -> ImageFile:
    """Read a file's header only, and refuse what is too large."""
    if len(data) > limits.bytes:
        raise ImageError(f"the image has {len(data)} bytes, and {limits.bytes} are allowed", 413)
    if data.startswith(_JPEG) and data.count(_START_OF_SCAN) > _MOST_SCANS:
        raise ImageError(f"the JPEG has more than {_MOST_SCANS} scans")
    image = _header(data)
    width, height = image.size
    if width * height > limits.pixels:
        raise ImageError(
            f"the image has {width} x {height} pixels, and {limits.pixels} are allowed", 413
        )
    return image


def _header(data: bytes) -> ImageFile:
    # Pillow's `open` would also warn of large images by a limit of its own.
    try:
        from PIL.JpegImagePlugin import JpegImageFile
        from PIL.PngImagePlugin import PngImageFile
    except ImportError as error:
        raise ServingError(
            'images are decoded by Pillow, which is not installed: pip install "fxtrt[serve]"'
        ) from error
    kinds = {_JPEG: JpegImageFile, _PNG: PngImageFile}
    kind = next((kind for magic, kind in kinds.items() if data.startswith(magic)), None)
    if kind is None:
        raise ImageError("the data is neither a JPEG nor a PNG image", 415)
    try:
        return kind(BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # Damaged files make decoders raise anything.
        raise _damaged(error) from error


def _loaded(image: ImageFile) -> Tensor:
    import numpy as np

    try:
        if image.mode.startswith("I"):
            # Pillow's own conversion of 16 bits to RGB would clip at 255.
            deep = torch.from_numpy(np.array(image).astype("int32"))
            grey = ((deep * 255 + 32767) // 65535).clamp(0, 255).to(torch.uint8)
            return grey.expand(3, *grey.shape)
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(error) from error
    return pixels.permute(2, 0, 1)


def _orientation(image: ImageFile) -> int:
    """Return the EXIF orientation of an image; 1, which is upright, if its EXIF is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:
        log.debug("an image has damaged EXIF data, and is taken as upright: %r", error)
        return 1


def _damaged(error: Exception) -> ImageError:
    return ImageError(f"the image is damaged or truncated: {type(error).__name__}: {error}")


def _decoded_by_gpu(data: bytes, device: torch.device) -> Tensor | None:
    """Return a JPEG's pixels, or None if the CPU is to decode it or to say what is wrong."""
    is_complete = data.rfind(_END_OF_IMAGE) > data.rfind(_START_OF_SCAN)
    if not is_complete:
        return None
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels: Tensor = decode_jpeg(raw, mode=ImageReadMode.RGB, device=device)
    except (ImportError, RuntimeError) as error:
        log.debug("the GPU does not decode a JPEG: %r", error)
        return None
    return pixels
