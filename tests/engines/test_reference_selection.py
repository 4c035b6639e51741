"""GATHER, SCATTER, TOPK, NON_ZERO, ONE_HOT and NMS on the reference engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networkrun import constant, floats, load, run

from fxtrt.engines.base import EngineBackend
from fxtrt.errors import EngineError

TABLE = torch.arange(6.0).reshape(2, 3)


@pytest.fixture
def trt(reference: EngineBackend) -> Any:
    return reference.features.trt


def ints(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def gather(trt: Any, mode: str, axis: int = 0, batch: int = 0) -> Any:
    def build(net: Any, data: Any, indices: Any) -> Any:
        layer = net.add_gather_v2(data, indices, getattr(trt.GatherMode, mode))
        layer.axis = axis
        layer.num_elementwise_dims = batch
        return layer.get_output(0)

    return build


def test_gather_takes_slices(reference: EngineBackend, trt: Any) -> None:
    result = run(reference, gather(trt, "DEFAULT", 1), TABLE, ints([2, 0], [1, 1]))
    assert result.tolist() == [[[2, 0], [1, 1]], [[5, 3], [4, 4]]]


def test_gather_with_a_scalar_drops_the_axis(reference: EngineBackend, trt: Any) -> None:
    index = torch.tensor(2, dtype=torch.int32)
    assert run(reference, gather(trt, "DEFAULT", 1), TABLE, index).tolist() == [2, 5]


def test_gather_by_batch(reference: EngineBackend, trt: Any) -> None:
    result = run(reference, gather(trt, "DEFAULT", 1, batch=1), TABLE, ints([2, 0], [1, 1]))
    assert result.tolist() == [[2, 0], [4, 4]]


def test_gather_elements(reference: EngineBackend, trt: Any) -> None:
    result = run(reference, gather(trt, "ELEMENT", 1), TABLE, ints([2, 0], [1, 1]))
    assert result.tolist() == [[2, 0], [4, 4]]


@pytest.mark.parametrize(
    ("indices", "batch", "expected"),
    [
        (ints([1, 2], [0, 1]), 0, [5, 1]),
        (ints([1], [0]), 0, [[3, 4, 5], [0, 1, 2]]),
        (ints([2], [1]), 1, [2, 4]),
    ],
)
def test_gather_nd_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, indices: torch.Tensor, batch: int, expected: list[Any]
) -> None:
    assert run(reference, gather(trt, "ND", batch=batch), TABLE, indices).tolist() == expected


def test_gather_wraps_negative_indices_of_static_axes_only(
    reference: EngineBackend, trt: Any
) -> None:
    build, index = gather(trt, "DEFAULT", 1), ints(-1)
    assert run(reference, build, TABLE, index).tolist() == [[2], [5]]
    engine = load(reference, build, TABLE, index, dynamic=True)
    with pytest.raises(EngineError, match="index -1 is outside an axis of size 3"):
        engine.run([TABLE, index])


@pytest.mark.parametrize("mode", ["DEFAULT", "ELEMENT", "ND"])
def test_gather_refuses_indices_beyond_the_end(
    reference: EngineBackend, trt: Any, mode: str
) -> None:
    index = ints([2], [2])
    engine = load(reference, gather(trt, mode), TABLE, index)
    with pytest.raises(EngineError, match="index 2 is outside an axis of size 2"):
        engine.run([TABLE, index])


def test_scatter_elements(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, data: Any, indices: Any, updates: Any) -> Any:
        layer = net.add_scatter(data, indices, updates, trt.ScatterMode.ELEMENT)
        layer.axis = 1
        return layer.get_output(0)

    result = run(reference, build, TABLE, ints([2], [0]), floats([[-1], [-2]]))
    assert result.tolist() == [[0, 1, -1], [-2, 4, 5]]


@pytest.mark.parametrize(
    ("indices", "updates", "expected"),
    [
        (ints([1, 2], [0, 0]), floats(-1, -2), [[-2, 1, 2], [3, 4, -1]]),
        (ints([1]), floats([[7, 8, 9]]), [[0, 1, 2], [7, 8, 9]]),
    ],
)
def test_scatter_nd_does_as_tensorrt_documents(
    reference: EngineBackend,
    trt: Any,
    indices: torch.Tensor,
    updates: torch.Tensor,
    expected: list[Any],
) -> None:
    def build(net: Any, data: Any, indices: Any, updates: Any) -> Any:
        return net.add_scatter(data, indices, updates, trt.ScatterMode.ND).get_output(0)

    assert run(reference, build, TABLE, indices, updates).tolist() == expected


@pytest.mark.parametrize(
    ("operation", "values", "indices"),
    [
        ("MAX", [[5, 3], [9, 7]], [[1, 2], [0, 1]]),
        ("MIN", [[1, 3], [7, 7]], [[0, 2], [1, 2]]),
    ],
)
def test_topk_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, operation: str, values: list[Any], indices: list[Any]
) -> None:
    def build(net: Any, x: Any) -> tuple[Any, Any]:
        layer = net.add_topk(x, getattr(trt.TopKOperation, operation), 2, 2)
        return layer.get_output(0), layer.get_output(1)

    found, where = run(reference, build, floats([[1, 5, 3], [9, 7, 7]]))
    assert found.tolist() == values
    assert where.tolist() == indices
    assert where.dtype == torch.int32


def test_topk_along_the_first_axis_with_a_dynamic_count(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any, k: Any) -> Any:
        layer = net.add_topk(x, trt.TopKOperation.MAX, 1, 1)
        layer.set_input(1, k)
        return layer.get_output(0)

    x = floats([[1, 9], [5, 7], [3, 8]])
    result = run(reference, build, x, torch.tensor(2, dtype=torch.int32))
    assert result.tolist() == [[5, 9], [3, 8]]


def test_non_zero_is_row_major(reference: EngineBackend) -> None:
    x = floats([[0, 1], [2, 3]])
    result = run(reference, lambda net, x: net.add_non_zero(x).get_output(0), x)
    assert result.tolist() == [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    ("axis", "expected"), [(-1, [[0, 0, 9], [9, 0, 0]]), (0, [[0, 9], [0, 0], [9, 0]])]
)
def test_one_hot_does_as_tensorrt_documents(
    reference: EngineBackend, axis: int, expected: list[Any]
) -> None:
    def build(net: Any, indices: Any, values: Any) -> Any:
        depth = constant(net, 3, torch.int32)
        return net.add_one_hot(indices, values, depth, axis).get_output(0)

    assert run(reference, build, ints(2, 0), floats(0, 9)).tolist() == expected


BOXES = floats([[0, 0, 10, 10], [10, 11, 0, 1], [20, 20, 30, 30], [0, 0, 10, 4]])
SCORES = floats([0.9, 0.8, 0.7, 0.95])


def nms(trt: Any, iou: float, least: float = 0.0, most: int = 10, **attributes: Any) -> Any:
    def build(net: Any, boxes: Any, scores: Any) -> tuple[Any, Any]:
        layer = net.add_nms(boxes, scores, constant(net, most, torch.int32))
        layer.set_input(3, constant(net, iou, torch.float32))
        layer.set_input(4, constant(net, least, torch.float32))
        for name, value in attributes.items():
            setattr(layer, name, value)
        return layer.get_output(0), layer.get_output(1)

    return build


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Box 1 shares 9/11 with box 0; box 3 shares 2/5 with box 0 and 3/11 with box 1.
        ({"iou": 0.5}, [3, 0, 2]),
        ({"iou": 0.3}, [3, 1, 2]),
        ({"iou": 0.9}, [3, 0, 1, 2]),
        ({"iou": 0.9, "least": 0.8}, [3, 0]),
        ({"iou": 0.9, "most": 2}, [3, 0]),
        ({"iou": 0.5, "topk_box_limit": 3}, [3, 0]),
    ],
)
def test_nms_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, options: dict[str, Any], expected: list[int]
) -> None:
    indices, count = run(
        reference, nms(trt, **options), BOXES.unsqueeze(0), SCORES.reshape(1, 4, 1)
    )
    assert indices.tolist() == [[0, 0, box] for box in expected]
    assert count.item() == len(expected)


def test_nms_works_by_image_and_class_best_scores_first(reference: EngineBackend, trt: Any) -> None:
    boxes = torch.stack([BOXES[:2], BOXES[1:3]])
    scores = floats([[[0.5, 0.9], [0.6, 0.8]], [[0.1, 0.0], [0.2, 0.3]]])
    indices, count = run(reference, nms(trt, 0.5), boxes, scores)
    assert indices.tolist() == [[0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]]
    assert count.item() == 5


def test_nms_with_boxes_by_class_and_centres(reference: EngineBackend, trt: Any) -> None:
    centres = floats([[[[5, 5, 10, 10], [5, 5, 2, 2]], [[5, 6, 10, 10], [9, 9, 2, 2]]]])
    scores = floats([[[0.9, 0.9], [0.8, 0.8]]])
    build = nms(trt, 0.5, bounding_box_format=trt.BoundingBoxFormat.CENTER_SIZES)
    indices, _ = run(reference, build, centres, scores)
    assert sorted(indices.tolist()) == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
