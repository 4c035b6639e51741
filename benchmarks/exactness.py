"""Compares the detections of fxtrt in fp32 with those of PyTorch on many images, up to ties.

Example, on a machine with a GPU and Detectron2:
    python benchmarks/exactness.py --family "Faster R-CNN R50-FPN" --images 200 --size 800x1344
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from exact_match import Exactness, Rules

import fxtrt
from fxtrt.diagnostics.example_models import load_photograph

__all__ = ["calls_of", "compare_calls", "pictures"]

_SHARES = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (0.6, 0.8), (0.5, 0.5))
"""The five sizes, as shares of the largest height and width."""


def pictures(count: int, height: int, width: int) -> Iterator[dict[str, Any]]:
    """Yield pictures of five sizes, no two alike, as inputs of Detectron2."""
    photograph = load_photograph()[None] * 255
    drawn = torch.Generator().manual_seed(0)
    for number in range(count):
        down, across = _SHARES[number % len(_SHARES)]
        size = int(height * down), int(width * across)
        image = torch.nn.functional.interpolate(photograph, size, mode="bilinear")[0]
        image = image.roll(int(torch.randint(size[1], (1,), generator=drawn)), 2)
        noise = torch.randn(image.shape, generator=drawn) * 12
        yield {"image": (image + noise).clamp(0, 255), "height": size[0], "width": size[1]}


def calls_of(images: Sequence[Any], most: int = 4) -> Iterator[list[Any]]:
    """Yield all images in batches of 1, 2, ... `most`, again and again."""
    start, count = 0, 1
    while start < len(images):
        yield list(images[start : start + count])
        start, count = start + count, count % most + 1


def compare_calls(model: Any, fast: Any, calls: Iterator[list[Any]]) -> Exactness:
    """Compare the answers of a compiled model with those of the model itself."""
    found, rules = Exactness(), Rules.of(model)
    with torch.no_grad():
        for call in calls:
            found.add(fast(call), model(call), rules)
    return found


def main() -> int:
    """Compare one family, and print what was found."""
    from detector_families import FAMILIES

    families = {family.name: family for family in FAMILIES}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=families, default="Faster R-CNN R50-FPN")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", default="800x1344", help="the largest height and width")
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # Calibration on another device would give other weights.
    model, example = families[options.family].build()
    model = model.to(options.device)
    start = time.perf_counter()
    fast: Any = fxtrt.compile(
        model, (example,), engine=options.engine, precision="fp32", optimization_level=0
    )
    print(f"{options.family}: compiled in {time.perf_counter() - start:.0f} s", flush=True)
    images = list(pictures(options.images, height, width))
    found = compare_calls(model, fast, calls_of(images))
    print(
        f"{found.images} images, {found.detections} detections; "
        f"boxes differ by {found.boxes:.1e} px, scores by {found.scores:.1e}"
    )
    print("ties:", dict(found.ties) or "none")
    for line in found.faults[:20]:
        print("fault:", line)
    print(f"{len(found.faults)} faults; fallbacks: {dict(fast.forward.fallbacks)}")
    return 1 if found.faults or fast.forward.fallbacks else 0


if __name__ == "__main__":
    sys.exit(main())
