"""The kernels of `fxtrt::dense_detections` give what its CPU implementation gives."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from head_outputs import SPECIAL, DenseHead, dense_head
from kernel_device import DEVICE
from torch import Tensor

from fxtrt.detection.dense_rules import DenseRules
from fxtrt.detection.kernels import dense_head as dense_kernels
from fxtrt.detection.ops import dense_detections as operator

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
"""numpy warns of what is not finite."""
GRIDS = [(4, 6), (3, 2), (1, 1)]
STRIDES = [8, 9, 16, 17, 64, 80]
RULES = DenseRules(
    offset=0.5,
    weights=(1.0, 1.0, 2.0, 2.0),
    score_thresh=0.3,
    nms_thresh=0.5,
    topk=12,
    most=10,
    candidates=2048,
    library="detectron2",
    head="retinanet",
)


@pytest.fixture(autouse=True)
def ties_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU implementation take equal scores by rising index, as the kernels do.

    On the CPU the last bit of PyTorch's sigmoid depends on a value's place in the tensor, so equal
    logits need not have equal scores.
    """

    def best(scores: Tensor, rules: DenseRules) -> tuple[Tensor, Tensor]:
        scores = scores.nan_to_num(-2)
        ordered, order = scores.sort(descending=True, stable=True)
        count = min(rules.topk, int((ordered > rules.score_thresh).sum()))
        return ordered[:count], order[:count]

    monkeypatch.setattr(operator, "_best", best)
    monkeypatch.setattr(Tensor, "sigmoid", lambda x: 1 / (1 + x.double().neg().exp().float()))


def cells_of(counts: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    halves = [torch.rand(n, 2, generator=generator) * 20 + 3 for n in counts]
    return [torch.cat([-half, half], 1) for half in halves]


def detect(
    head: DenseHead, cells: list[Tensor], rules: DenseRules
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return what the kernels give, and what is expected."""
    parts = (head.logits, head.deltas, head.centerness)
    expected = operator._composed(*parts, cells, head.sizes, STRIDES[: 2 * len(cells)], rules)
    maps = tuple([x.to(DEVICE) for x in part] for part in parts)
    on_device = [x.to(DEVICE) for x in cells]
    actual = operator._on_kernels(
        (maps[0], maps[1], maps[2]),
        on_device,
        head.sizes.to(DEVICE),
        STRIDES[: 2 * len(cells)],
        rules,
    )
    assert actual is not None
    return tuple(x.cpu() for x in actual), expected


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Compare; `exp` may differ in its last bit."""
    boxes, scores, *integers = actual
    torch.testing.assert_close(boxes, expected[0], rtol=1e-6, atol=4e-5, equal_nan=True)
    torch.testing.assert_close(scores, expected[1], rtol=0, atol=1e-7)
    assert all(map(torch.equal, integers, expected[2:]))


@pytest.mark.parametrize("special", SPECIAL)
def test_retinanet(special: str) -> None:
    head = dense_head(1, GRIDS, [2, 2, 2], 3, special, images=1 if special else 2)
    actual, expected = detect(head, cells_of([2, 2, 2]), RULES)
    assert_same(actual, expected)
    assert bool((expected[3] == 10).all()) == (special != "nothing")


def in_layout(head: DenseHead, layout: str) -> DenseHead:
    """Return half-precision maps, of which some or all are channels-last."""
    last, half = torch.channels_last, torch.float16
    logits = [x.to(half, memory_format=last) for x in head.logits]
    if layout == "mixed":
        return DenseHead(logits, [x.half() for x in head.deltas], head.centerness, head.sizes)
    deltas = [x.to(half, memory_format=last) for x in head.deltas]
    centerness = [x.to(half, memory_format=last) for x in head.centerness]
    return DenseHead(logits, deltas, centerness, head.sizes)


@pytest.mark.parametrize("layout", ["mixed", "channels last"])
def test_layouts(layout: str) -> None:
    rules = dataclasses.replace(RULES, library="torchvision")
    head = in_layout(dense_head(2, GRIDS[1:], [2, 2], 3), layout)
    assert_same(*detect(head, cells_of([2, 2]), rules))


@pytest.mark.parametrize("library", ["detectron2", "torchvision"])
def test_fcos(library: str) -> None:
    rules = dataclasses.replace(RULES, library=library, head="fcos", topk=9)
    head = dense_head(3, GRIDS, [1, 1, 1], 3, centerness=True, images=1)
    actual, expected = detect(head, cells_of([1, 1, 1]), rules)
    assert_same(actual, expected)
    assert expected[3].tolist() == [10]


@pytest.mark.parametrize("special", ["", "not finite"])
def test_ssd(special: str) -> None:
    rules = dataclasses.replace(RULES, library="torchvision", head="ssd", topk=4)
    anchors = [1, 2, 1]
    head = dense_head(4, GRIDS, anchors, 4, special, images=1)
    boxes = cells_of([a * h * w for a, (h, w) in zip(anchors, GRIDS, strict=True)])
    actual, expected = detect(head, [x + 30 for x in boxes], rules)
    assert_same(actual, expected)
    assert expected[3].sum() > 5


@pytest.mark.parametrize("layout", ["", "mixed", "channels last"])
def test_pixels_of_several_groups(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups end within the classes of an anchor, and there are more than are selected."""
    monkeypatch.setattr(dense_kernels, "_WIDTH", 4)
    monkeypatch.setattr(dense_kernels, "_PIXELS", 8)
    head = dense_head(5, GRIDS, [2, 2, 2], 5, "ties")
    assert_same(*detect(in_layout(head, layout) if layout else head, cells_of([2, 2, 2]), RULES))


def test_ties_of_groups_of_other_scores_are_taken_by_rising_index() -> None:
    head = dense_head(11, [(3, 3)], [1], 3, images=1)
    logits = head.logits[0].fill_(-5).view(3, 9)  # Classes, pixels.
    logits[0, 0], logits[0, 1], logits[1, 1] = 1, 2, 1
    actual, expected = detect(
        head, cells_of([1]), dataclasses.replace(RULES, topk=2, nms_thresh=1.0)
    )
    assert_same(actual, expected)
    assert expected[2][0, :2].tolist() == [0, 0]  # The third has class 1.


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_any_number_of_scores_may_pass_the_threshold(kind: str) -> None:
    """The libraries' own limit for a level bounds the candidates."""
    head = dense_head(9, [(40, 50)], [1], 50, centerness=kind == "fcos", images=1)
    rules = dataclasses.replace(RULES, head=kind, score_thresh=0.0, topk=40, most=60)
    actual, expected = detect(head, cells_of([1]), rules)
    assert head.logits[0].numel() == 100_000
    assert_same(actual, expected)
    assert 0 < int(expected[3]) < 60


@pytest.mark.parametrize(("candidates", "most", "overflow"), [(120, 20, False), (120, 120, True)])
def test_more_scores_of_ssd_than_are_looked_at(candidates: int, most: int, overflow: bool) -> None:
    head = dense_head(10, [(12, 12)], [1], 70, images=1)
    rules = dataclasses.replace(RULES, library="torchvision", head="ssd", score_thresh=0.0, topk=2)
    rules = dataclasses.replace(rules, most=most, candidates=candidates)
    actual, expected = detect(head, [cells_of([144])[0] + 30], rules)
    assert actual[-1].tolist() == [overflow]
    if not overflow:
        assert_same(actual, expected)


@pytest.mark.parametrize("threshold", [-1.0, 0.999999, 1.0])
def test_extreme_thresholds(threshold: float) -> None:
    head = dense_head(6, [(3, 3)], [1], 3, images=1)
    values = [13.0, 13.5, 13.8, 14.0, 14.5, 30.0, -torch.inf, torch.nan]
    head.logits[0].view(-1)[: len(values)] = torch.tensor(values)
    rules = dataclasses.replace(RULES, score_thresh=threshold)
    assert_same(*detect(head, cells_of([1]), rules))


def test_overflow_is_told_where_it_could_matter() -> None:
    head = dense_head(7, [(6, 6)], [1], 1, images=1)
    logits = [x * 0 + 3 for x in head.logits]
    same = DenseHead(logits, [x * 0 for x in head.deltas], [], head.sizes)
    cells = [torch.tensor([[-1.0, -1.0, 1.0, 1.0]])]  # No two of the boxes overlap.
    rules = dataclasses.replace(RULES, topk=1000)
    for most, candidates, overflow in ((36, 36, False), (36, 35, True), (20, 20, False)):
        limited = dataclasses.replace(rules, most=most, candidates=candidates)
        actual, expected = detect(same, cells, limited)
        assert actual[-1].tolist() == [overflow]
        if not overflow:
            assert_same(actual, expected)


def test_levels_that_differ_are_left_to_the_composition() -> None:
    head = dense_head(8, GRIDS, [1, 2, 1], 3)
    parts = (head.logits, head.deltas, head.centerness)
    assert operator._on_kernels(parts, cells_of([1, 2, 1]), head.sizes, STRIDES, RULES) is None
    many = dataclasses.replace(RULES, candidates=10_000)
    assert operator._on_kernels(parts, cells_of([1, 2, 1]), head.sizes, STRIDES, many) is None
