"""A stitched graph gives what the whole graph gave, whatever the clusters were."""

from __future__ import annotations

import time

import torch
from graphs import random_dag, rejects
from hypothesis import given, settings
from hypothesis import strategies as st

from fxtrt.capture.export import trace
from fxtrt.lowering.stitch import stitch
from fxtrt.partition.extract import extract
from fxtrt.partition.partition import partition, repair
from fxtrt.settings import Settings

aten = torch.ops.aten


def stitched(gm: torch.fx.GraphModule, minimum: int = 1) -> int:
    """Stitch every cluster back as its own PyTorch module; the number of clusters."""
    divided = repair(
        gm, partition(gm, rejects(aten.sigmoid.default), Settings(min_cluster_size=minimum))
    )
    clusters = [extract(gm, cluster) for cluster in divided.clusters]
    stitch(gm, clusters, [one.module for one in clusters])
    return len(clusters)


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_stitching_changes_nothing(seed: int, size: int) -> None:
    gm = random_dag(seed, size)
    x = torch.randn(2, 3)
    expected = gm(x)
    stitched(gm)
    torch.testing.assert_close(gm(x), expected, atol=0, rtol=0)


def test_weights_are_shared_and_named_in_the_cluster() -> None:
    weight = torch.randn(3)
    gm = trace(lambda x: torch.relu(x * weight) + weight, (torch.randn(2, 3),))
    divided = repair(gm, partition(gm, rejects(), Settings()))
    extracted = extract(gm, divided.clusters[0])
    (buffer,) = extracted.module.buffers()
    assert buffer.data_ptr() == weight.data_ptr()
    assert len(extracted.inputs) == 1


def test_sizes_of_inner_tensors_are_computed_inside() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([x, x]).relu()
        z = y.view(y.shape[0] * y.shape[1])
        return torch.sigmoid(z * 2).view(y.shape[0], -1)

    gm = trace(function, (torch.randn(2, 3),), dynamic=True)
    x = torch.randn(5, 4)
    expected = gm(x)
    assert stitched(gm) >= 1
    torch.testing.assert_close(gm(x), expected)


def test_several_outputs_and_multi_output_operators() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, indices = torch.topk(torch.relu(x), 2)
        return torch.sigmoid(values), indices + 1, values * 2

    gm = trace(function, (torch.randn(4, 5),))
    x = torch.randn(4, 5)
    expected = gm(x)
    assert stitched(gm) == 1
    torch.testing.assert_close(gm(x), expected)


def test_weights_that_only_clusters_read_leave_the_graph() -> None:
    weight = torch.randn(3)
    gm = trace(lambda x: torch.sigmoid(torch.relu(x * weight)) * weight, (torch.randn(2, 3),))
    x = torch.randn(2, 3)
    expected = gm(x)
    assert stitched(gm) == 2
    assert not gm.graph.find_nodes(op="get_attr")
    torch.testing.assert_close(gm(x), expected)


def test_sizes_that_share_their_parts_take_no_time() -> None:
    """Each size is the sum of the two before it: 2**40 ways lead to the first ones."""

    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([x, x]).relu()
        a, b = y.shape[0], y.shape[1]
        for _ in range(60):
            a, b = b, a + b
        return torch.relu(y + 1) * b

    gm = trace(function, (torch.randn(2, 3),), dynamic=True)
    start = time.perf_counter()
    assert stitched(gm) == 1
    assert time.perf_counter() - start < 10
