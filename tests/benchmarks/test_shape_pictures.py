"""Pictures of shapes are the same for a seed, and their annotations fit what they show."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import cache

import pytest
import torch
from shape_pictures import CATEGORIES, Picture, Task, coco_json, flipped, generate

TASK = Task((60, 80))


@cache
def pictures() -> list[Picture]:
    return generate(TASK, 12, seed=3)


def digest(picture: Picture) -> str:
    fields = (picture.image, picture.boxes, picture.labels, picture.masks)
    return hashlib.sha256(b"".join(field.numpy().tobytes() for field in fields)).hexdigest()


def test_a_seed_gives_the_same_pictures_whatever_their_number() -> None:
    digests = [digest(one) for one in pictures()]
    assert [digest(one) for one in generate(TASK, 4, seed=3)] == digests[:4]
    assert len({*digests, *(digest(one) for one in generate(TASK, 4, seed=4))}) == 16


@pytest.mark.slow
def test_processes_draw_the_same_pictures_and_leave_no_file_open() -> None:
    opened = len(os.listdir("/proc/self/fd"))
    several = generate(TASK, 40, seed=3, processes=2)
    assert [digest(one) for one in several[:12]] == [digest(one) for one in pictures()]
    assert len(os.listdir("/proc/self/fd")) < opened + 20


def test_annotations_fit_the_visible_pixels() -> None:
    for picture in pictures():
        count = len(picture.labels)
        assert 1 <= count <= TASK.most_shapes
        assert picture.image.shape == (3, *TASK.size)
        assert picture.image.dtype == torch.uint8
        assert picture.masks.shape == (count, *TASK.size)
        assert int(picture.masks.sum(0).max()) == 1, "one pixel shows one shape"
        for box, mask in zip(picture.boxes, picture.masks, strict=True):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(corner) for corner in corners]


def test_all_categories_and_sizes_occur() -> None:
    many = generate(TASK, 40, seed=0)
    labels = torch.cat([one.labels for one in many])
    assert set(labels.tolist()) == set(range(len(CATEGORIES)))
    few = generate(replace(TASK, categories=2), 10, seed=0)
    assert set(torch.cat([one.labels for one in few]).tolist()) == {0, 1}
    sides = torch.cat([one.boxes[:, 2] - one.boxes[:, 0] for one in many])
    assert sides.min() < 12
    assert sides.max() > 25


def test_some_shapes_hide_parts_of_others() -> None:
    """Boxes then overlap, though no pixel belongs to two shapes."""
    from fxtrt.numerics.matching import overlaps

    most = max(float(overlaps(p.boxes, p.boxes).triu(1).max()) for p in pictures())
    assert most > 0.1


@pytest.mark.parametrize(("sideways", "upside_down"), [(True, False), (False, True), (True, True)])
def test_a_flipped_picture_has_flipped_annotations(sideways: bool, upside_down: bool) -> None:
    for picture in pictures()[:4]:
        other = flipped(picture, sideways=sideways, upside_down=upside_down)
        for box, mask in zip(other.boxes, other.masks, strict=True):
            x1, y1, x2, y2 = map(int, box)
            inside = torch.zeros_like(mask)
            inside[y1:y2, x1:x2] = True
            assert not (mask & ~inside).any()
            assert mask[y1].any()
            assert mask[y2 - 1].any()
            assert mask[:, x1].any()
            assert mask[:, x2 - 1].any()
        twice = flipped(other, sideways=sideways, upside_down=upside_down)
        assert digest(twice) == digest(picture)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools' own
def test_coco_json_is_read_by_pycocotools() -> None:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = coco_json(pictures())
    coco.createIndex()
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == list(CATEGORIES)
    for image, picture in enumerate(pictures(), 1):
        rows = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
        assert [row["category_id"] - 1 for row in rows] == picture.labels.tolist()
        for row, mask, (x1, y1, x2, y2) in zip(
            rows, picture.masks, picture.boxes.tolist(), strict=True
        ):
            assert torch.equal(torch.from_numpy(coco.annToMask(row)).bool(), mask)
            assert row["area"] == int(mask.sum())
            assert row["bbox"] == [x1, y1, x2 - x1, y2 - y1]
