"""Turns a seed into pictures of shapes with the boxes and masks of what can be seen of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["CATEGORIES", "Picture", "Task", "coco_json", "flipped", "generate"]

CATEGORIES = ("square", "triangle", "ring", "circle", "star")
"""A label is an index into these, counted from 0."""

_LEAST_VISIBLE = 0.5
"""No shape hides more than the rest of another."""
_FINER = 2
"""Edges are drawn at this many times the resolution, and averaged."""

Floats = NDArray[np.float32]
Points = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Size = tuple[int, int]
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Task:
    """The content of pictures.

    size:        height and width.
    categories:  how many of CATEGORIES there are, the first ones.
    most_shapes: of a picture; each has one at least.
    radii:       the smallest and the largest radius, as a share of the shorter side.
    """

    size: tuple[int, int]
    categories: int = len(CATEGORIES)
    most_shapes: int = 6
    radii: tuple[float, float] = (0.08, 0.26)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and what it shows.

    image:  (3, H, W) uint8, RGB.
    boxes:  (N, 4) float32, the corners x1, y1, x2, y2 around the visible pixels.
    labels: (N,) int64, indices into CATEGORIES.
    masks:  (N, H, W) bool, the visible pixels.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor


def generate(task: Task, count: int, *, seed: int, processes: int = 0) -> list[Picture]:
    """Return `count` pictures: the same ones for the same task and seed.

    Args:
        processes: how many draw at once; 0 draws in this process. It changes no picture.
    """
    if not processes:
        return [_draw(task, seed, index) for index in range(count)]
    # A child that is forked would inherit the locks of torch's threads.
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        drawn = list(pool.map(partial(_arrays, task, seed), range(count), chunksize=16))
    return [Picture(*map(torch.from_numpy, arrays)) for arrays in drawn]


def _arrays(task: Task, seed: int, index: int) -> tuple[NDArray[Any], ...]:
    """Return the fields of a picture. Each tensor that a process sends takes an open file."""
    picture = _draw(task, seed, index)
    return tuple(getattr(picture, field.name).numpy() for field in fields(Picture))


def _draw(task: Task, seed: int, index: int) -> Picture:
    size = task.size
    random = np.random.default_rng([seed, index])
    canvas = _background(random, size)
    visible: list[Mask] = []
    areas: list[int] = []
    labels: list[int] = []
    for _ in range(int(random.integers(1, task.most_shapes + 1))):
        label, window, alpha = _shape(random, task)
        mask = np.zeros(size, np.bool_)
        mask[window] = alpha >= 0.5
        left = [int((one & ~mask).sum()) for one in visible]
        if any(n < _LEAST_VISIBLE * area for n, area in zip(left, areas, strict=True)):
            continue
        visible = [one & ~mask for one in visible] + [mask]
        areas.append(int(mask.sum()))
        labels.append(label)
        part = canvas[window]
        part += alpha[..., None] * (_filling(random, part, alpha) - part)
    canvas += random.normal(0.0, random.uniform(2.0, 9.0), canvas.shape).astype(np.float32)
    pixels = canvas.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
    masks = torch.from_numpy(np.stack(visible))
    return Picture(torch.from_numpy(pixels.copy()), _boxes(masks), torch.tensor(labels), masks)


def _background(random: np.random.Generator, size: Size) -> Floats:
    """Return (H, W, 3): clouds of two scales, and stripes."""
    canvas = np.full((*size, 3), random.uniform(40, 215, 3), np.float32)
    for cells, strength in ((4, 40.0), (24, 18.0)):
        canvas += _clouds(random, size, cells) * random.uniform(0.3, 1.0) * strength
    return canvas + _stripes(random, size)[..., None] * random.uniform(0.0, 16.0)


def _clouds(random: np.random.Generator, size: Size, cells: int) -> Floats:
    grid = torch.from_numpy(random.normal(0.0, 1.0, (1, 3, cells, cells)).astype(np.float32))
    smooth: Floats = interpolate(grid, size, mode="bilinear")[0].permute(1, 2, 0).numpy()
    return smooth


def _stripes(random: np.random.Generator, size: Size) -> Floats:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle, period = random.uniform(0, math.pi), random.uniform(6, 30)
    waves: Floats = np.sin((x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period))
    return waves.astype(np.float32)


def _shape(random: np.random.Generator, task: Task) -> tuple[int, Window, Floats]:
    """Return a label, the pixels around the shape, and how much of each of them it covers."""
    size = task.size
    label = int(random.integers(task.categories))
    low, high = (math.log(share * min(size)) for share in task.radii)
    radius = math.exp(random.uniform(low, high))
    margin = 0.6 * radius  # A part of a shape may lie outside of the picture.
    center = [random.uniform(margin, side - margin) for side in size]
    angle, stretch = random.uniform(0, 2 * math.pi), random.uniform(0.75, 1.0)
    window, dy, dx = _around(center, radius, size)
    x = (dx * math.cos(angle) + dy * math.sin(angle)) / radius
    y = (dy * math.cos(angle) - dx * math.sin(angle)) / (radius * stretch)
    fine = _inside(CATEGORIES[label], x, y).astype(np.float32)
    height, width = (side // _FINER for side in fine.shape)
    alpha: Floats = fine.reshape(height, _FINER, width, _FINER).mean((1, 3))
    return label, window, alpha


def _around(center: Sequence[float], radius: float, size: Size) -> tuple[Window, Points, Points]:
    """Return the pixels near a point, and how far down and right of it each finer pixel lies."""
    slices, offsets = [], []
    for middle, side in zip(center, size, strict=True):
        first, last = max(0, math.floor(middle - radius)), min(side, math.ceil(middle + radius))
        slices.append(slice(first, last))
        steps = np.arange(first * _FINER, last * _FINER, dtype=np.float32)
        offsets.append(((steps + 0.5) / _FINER - middle).astype(np.float32))
    down, right = np.meshgrid(*offsets, indexing="ij")
    return (slices[0], slices[1]), down, right


def _inside(category: str, x: Points, y: Points) -> Mask:
    """Tell of points which of them lie inside of a shape of radius 1 around 0."""
    if category in ("circle", "ring"):
        distance = x * x + y * y
        return (distance < 1.0) & (distance > (0.3 if category == "ring" else -1.0))
    angles = np.arctan2(y, x)
    distance = np.hypot(x, y)
    if category == "star":
        # Between a tip and the next notch, an edge is a straight line from radius 1 to 0.45.
        turn = np.abs(angles % (2 * math.pi / 5) - math.pi / 5) / (math.pi / 5)
        return distance * (1.0 + (1 / 0.45 - 1.0) * (1.0 - turn)) < 1.0
    sides = {"square": 4, "triangle": 3}[category]
    sector = angles % (2 * math.pi / sides) - math.pi / sides
    return distance * np.cos(sector) < math.cos(math.pi / sides)


def _filling(random: np.random.Generator, canvas: Floats, alpha: Floats) -> Floats:
    """Return (H, W, 3): a colour that differs from what it will hide, with a texture."""
    hidden = np.average(canvas, axis=(0, 1), weights=alpha)
    colors = random.uniform(0, 255, (8, 3)).astype(np.float32)
    far = np.abs(colors - hidden).max(1) > 90
    color = colors[int(far.argmax())] if far.any() else 255 - hidden
    texture = _stripes(random, canvas.shape[:2])[..., None] * random.uniform(0.0, 25.0)
    return (color + texture).astype(np.float32)


def _boxes(masks: Tensor) -> Tensor:
    rows, columns = masks.any(2), masks.any(1)
    corners = [
        (float(c[0]), float(r[0]), float(c[-1] + 1), float(r[-1] + 1))
        for r, c in zip(map(_places, rows), map(_places, columns), strict=True)
    ]
    return torch.tensor(corners)


def _places(line: Tensor) -> Tensor:
    return line.nonzero()[:, 0]


def flipped(picture: Picture, *, sideways: bool, upside_down: bool) -> Picture:
    """Return the mirror image of a picture."""
    sides = [dim for dim, wanted in ((-1, sideways), (-2, upside_down)) if wanted]
    height, width = picture.image.shape[1:]
    boxes = picture.boxes
    if sideways:
        boxes = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
        boxes = boxes + boxes.new_tensor([width, 0, width, 0])
    if upside_down:
        boxes = boxes[:, [0, 3, 2, 1]] * boxes.new_tensor([1, -1, 1, -1])
        boxes = boxes + boxes.new_tensor([0, height, 0, height])
    return Picture(picture.image.flip(sides), boxes, picture.labels, picture.masks.flip(sides))


def coco_json(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return the annotations in COCO's format: masks as run lengths, category ids from 1."""
    rows: list[dict[str, Any]] = []
    for image, picture in enumerate(pictures):
        shapes = (picture.boxes.tolist(), picture.labels.tolist(), picture.masks)
        for (x, y, right, bottom), label, mask in zip(*shapes, strict=True):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image + 1,
                    "category_id": label + 1,
                    "bbox": [x, y, right - x, bottom - y],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": list(mask.shape), "counts": _run_lengths(mask)},
                }
            )
    images = [
        {"id": i + 1, "height": one.image.shape[1], "width": one.image.shape[2]}
        for i, one in enumerate(pictures)
    ]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CATEGORIES)]
    return {"images": images, "categories": categories, "annotations": rows}


def _run_lengths(mask: Tensor) -> list[int]:
    """Return the lengths of the runs of equal pixels, column by column, zeros first."""
    pixels = mask.t().flatten()
    changes = (pixels[1:] != pixels[:-1]).nonzero()[:, 0] + 1
    ends = [0, *changes.tolist(), len(pixels)]
    lengths = [end - start for start, end in pairwise(ends)]
    return [0, *lengths] if pixels[0] else lengths
