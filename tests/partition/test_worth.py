"""An engine without convolutions and products is built only where it saves more than it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import rejects
from torch.fx import Node

from fxtrt.capture.export import trace
from fxtrt.partition.partition import Partition, partition
from fxtrt.partition.worth import BINDING_US, BYTES_PER_US, ENGINE_US, LAUNCH_US, worth
from fxtrt.settings import Settings

aten = torch.ops.aten
BOXES = torch.rand(1000, 4)


def calls(function: Callable[..., Any], *inputs: torch.Tensor) -> list[Node]:
    return [n for n in trace(function, inputs).graph.nodes if n.op == "call_function"]


def decode(anchors: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """A detector's boxes from anchors and deltas, as Detectron2 computes them."""
    widths = anchors[:, 2] - anchors[:, 0]
    x = deltas[:, 0] * widths + anchors[:, 0] + 0.5 * widths
    w = torch.exp(torch.clamp(deltas[:, 2], max=4.0)) * widths
    return torch.stack((x - 0.5 * w, x + 0.5 * w), dim=1)


def test_connected_pointwise_operators_are_one_launch() -> None:
    found = worth(calls(lambda x: (x.relu().view(-1) * 2).view(20, 200).exp(), BOXES))
    assert found.launches == 2
    assert found.crossings == 2
    assert found.bytes == 2 * 2 * BOXES.nbytes
    assert found.saves_us == pytest.approx(2 * LAUNCH_US + found.bytes / BYTES_PER_US)
    assert found.costs_us == ENGINE_US + 2 * BINDING_US


def test_other_operators_are_launched_by_either() -> None:
    found = worth(calls(lambda x: torch.topk(x.flatten().softmax(0), 9)[0], BOXES))
    assert (found.launches, found.bytes) == (0, 0)
    found = worth(calls(lambda x: (x.relu() + 1).cumsum(0).exp(), BOXES))
    assert (found.launches, found.bytes) == (1, 2 * BOXES.nbytes)


def test_views_that_select_or_permute_are_launches_of_an_engine() -> None:
    assert worth(calls(lambda x: (x.relu().unsqueeze(0) + 1).exp(), BOXES)).launches == 2
    assert worth(calls(lambda x: (x.relu().t() + 1).exp(), BOXES)).launches == 0
    assert worth(calls(lambda x: (x.relu()[:, 0] + 1).exp(), BOXES)).launches == 0


def test_what_is_read_outside_is_written_in_any_case() -> None:
    found = worth(calls(lambda x: (y := x.relu(), y.exp(), y.view(-1)), BOXES))
    assert (found.launches, found.bytes, found.crossings) == (1, 0, 4)


def test_a_tensor_in_another_memory_order_is_copied() -> None:
    image = torch.rand(1, 3, 50, 50)
    plain = worth(calls(lambda x: x.relu().exp(), image))
    last = worth(calls(lambda x: x.relu().exp(), image.to(memory_format=torch.channels_last)))
    copies = 2 * (LAUNCH_US + 2 * image.nbytes / BYTES_PER_US)
    assert last.costs_us - plain.costs_us == pytest.approx(copies)
    assert last.saves_us == plain.saves_us


def test_decoding_a_thousand_boxes_is_not_worth_an_engine() -> None:
    found = worth(calls(decode, BOXES, BOXES))
    assert found.saves_us < found.costs_us


def test_the_same_work_on_large_tensors_is() -> None:
    many = torch.empty(4_000_000, 4, device="meta")
    found = worth(calls(decode, many, many))
    assert found.saves_us > found.costs_us


def divided(size: int, *, product: bool, steps: int = 5, **options: Any) -> Partition:
    """A pointwise cluster, with or without a product that stays in PyTorch behind it."""

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        for _ in range(steps):
            x = torch.tanh(x)
        return torch.mm(x, w) if product else torch.erfinv(x)

    gm = trace(function, (torch.empty(size, 4, device="meta"), torch.empty(4, 4, device="meta")))
    return partition(gm, rejects(aten.mm.default, aten.erfinv.default), Settings(**options))


def codes(found: Partition) -> list[str]:
    return [rejection.code for rejection in found.rejections.values()]


def test_a_small_pointwise_cluster_stays_in_pytorch_beside_other_work() -> None:
    found = divided(1000, product=True)
    assert found.clusters == ()
    assert codes(found) == ["not_worth_it"] * 5 + ["test"]
    detail = next(iter(found.rejections.values())).detail
    assert "save about 20 us a call (4 launches, 128000 bytes between them)" in detail
    assert "cost 54 us (a call of an engine with 2 tensors in and out)" in detail


def test_a_large_or_a_long_one_has_an_engine() -> None:
    assert len(divided(1_000_000, product=True).clusters) == 1
    assert len(divided(1000, product=True, steps=20).clusters) == 1


def test_a_graph_without_flops_is_divided_as_before() -> None:
    found = divided(1000, product=False)
    assert len(found.clusters) == 1
    assert codes(found) == ["test"]


def test_a_clock_decides_where_there_is_one() -> None:
    assert len(divided(1000, product=True, partition="measured").clusters) == 1


def test_the_whitelist_lifts_the_rule_and_the_minimum_does_not() -> None:
    assert len(divided(1000, product=True, whitelist=("aten.tanh",)).clusters) == 1
    assert divided(1000, product=True, min_cluster_size=1).clusters == ()


def test_a_cluster_with_a_product_is_always_built() -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.mm(x, w)) + 1

    gm = trace(function, (torch.rand(2, 2), torch.rand(2, 2)))
    assert len(partition(gm, rejects(), Settings()).clusters) == 1
