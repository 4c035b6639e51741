"""Clusters are convex, large enough, explained, and independent of the order of nodes."""

from __future__ import annotations

import time
from collections.abc import Callable

import networkx as nx
import pytest
import torch
from graphs import quotient, random_dag, rejects, shuffle, their_partitions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph, GraphModule, Node

from fxtrt.capture.export import trace
from fxtrt.partition.partition import Partition, partition, repair
from fxtrt.registry import Rejection
from fxtrt.settings import Settings

aten = torch.ops.aten
SUPPORT = rejects(aten.sigmoid.default)
ANY_SIZE = Settings(min_cluster_size=1)


def divided(
    gm: GraphModule, support: Callable[[Node, bool], Rejection | None], options: Settings
) -> Partition:
    """The partition of `gm`, after its boundaries were repaired in it."""
    return repair(gm, partition(gm, support, options))


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_only_repair_changes_the_graph(seed: int, size: int) -> None:
    gm = random_dag(seed, size)
    before = str(gm.graph)
    division = partition(gm, SUPPORT, ANY_SIZE)
    assert str(gm.graph) == before
    repaired = repair(gm, division)
    assert (str(gm.graph) == before) == (division.repairs == ())
    assert repaired.repairs == ()
    assert repaired.cuts <= division.cuts


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_clusters_are_convex_and_every_call_is_accounted_for(seed: int, size: int) -> None:
    gm = random_dag(seed, size)
    division = divided(gm, SUPPORT, ANY_SIZE)
    assert nx.is_directed_acyclic_graph(quotient(gm, division))
    clustered = [node for cluster in division.clusters for node in cluster.nodes]
    calls = [node for node in gm.graph.nodes if node.op == "call_function"]
    assert sorted(map(str, [*clustered, *division.rejections])) == sorted(map(str, calls))


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), minimum=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_order_of_nodes_does_not_matter(seed: int, size: int, minimum: int) -> None:
    def outcome(gm: GraphModule) -> tuple[object, ...]:
        originals = set(gm.graph.nodes)
        division = divided(gm, SUPPORT, Settings(min_cluster_size=minimum))
        clusters = [{n.name for n in c.nodes if n in originals} for c in division.clusters]
        codes = {n.name: r.code for n, r in division.rejections.items() if n in originals}
        return clusters, codes, len(gm.graph.nodes), division.cuts, division.cuts_before_repair

    shuffled = random_dag(seed, size)
    shuffle(shuffled, seed)
    assert outcome(random_dag(seed, size)) == outcome(shuffled)


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), minimum=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_repair_never_adds_cuts_or_clusters(seed: int, size: int, minimum: int) -> None:
    division = divided(random_dag(seed, size), SUPPORT, Settings(min_cluster_size=minimum))
    assert division.cuts <= division.cuts_before_repair


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_never_more_clusters_than_torch_makes(seed: int, size: int) -> None:
    gm = random_dag(seed, size)

    theirs = their_partitions(gm, SUPPORT)
    assert len(divided(gm, SUPPORT, ANY_SIZE).clusters) <= len(theirs)


def test_small_clusters_stay_out_and_say_so() -> None:
    gm = trace(lambda x: torch.sigmoid(torch.relu(x) + 1), (torch.randn(2),))
    division = divided(gm, SUPPORT, Settings(min_cluster_size=3))
    assert division.clusters == ()
    codes = {node.name: rejection.code for node, rejection in division.rejections.items()}
    assert codes == {"relu": "too_small", "add": "too_small", "sigmoid": "test"}


def test_views_do_not_count() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x.view(3, 2).permute(1, 0).relu() + 1).view(2, 3, 1)

    gm = trace(function, (torch.randn(2, 3),))
    assert divided(gm, SUPPORT, Settings(min_cluster_size=3)).clusters == ()
    assert len(divided(gm, SUPPORT, Settings(min_cluster_size=2)).clusters) == 1


def test_the_whitelist_lifts_the_minimum_size() -> None:
    gm = trace(lambda x: torch.relu(x), (torch.randn(2),))
    assert len(divided(gm, SUPPORT, Settings(whitelist=("aten.relu",))).clusters) == 1


@pytest.mark.parametrize("entry", ["aten.relu", "aten.relu.default", "rel?", "aten.re*"])
def test_the_blacklist_keeps_nodes_out(entry: str) -> None:
    gm = trace(lambda x: torch.relu(x + 1) * 2, (torch.randn(2),))
    division = divided(gm, SUPPORT, Settings(min_cluster_size=1, blacklist=(entry,)))
    codes = {node.name: rejection.code for node, rejection in division.rejections.items()}
    assert codes == {"relu": "blacklist"}
    assert len(division.clusters) == 2


def test_parallel_branches_share_a_cluster() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x).sin() + torch.relu(torch.sigmoid(y))

    gm = trace(function, (torch.randn(2), torch.randn(2)))
    division = divided(gm, SUPPORT, ANY_SIZE)
    assert [len(cluster.nodes) for cluster in division.clusters] == [4]


def test_a_size_never_splits_a_cluster() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x) + 1
        return y.view(y.shape[0] * y.shape[1]) * 2

    gm = trace(function, (torch.randn(2, 3),), dynamic=True)
    division = divided(gm, SUPPORT, ANY_SIZE)
    assert len(division.clusters) == 1


def test_a_cut_is_counted_once_for_each_side_that_reads_it() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(x)  # read by PyTorch (twice) and by the second cluster: two cuts
        b = torch.sigmoid(a) + torch.sigmoid(a).sin()  # two values into the second cluster
        return torch.relu(a + b)  # a result is no cut

    gm = trace(function, (torch.randn(2),))
    division = divided(gm, SUPPORT, ANY_SIZE)
    assert len(division.clusters) == 2
    assert division.cuts_before_repair == 4


def test_a_size_read_outside_costs_the_tensor() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.cat([x, x])
        return torch.sigmoid(x).view(y.shape[0] // 2, -1), torch.relu(y) + y.shape[0]

    gm = trace(function, (torch.randn(2, 3),), dynamic=True)
    division = divided(gm, rejects(aten.sigmoid.default, aten.view.default), ANY_SIZE)
    assert [len(cluster.nodes) for cluster in division.clusters] == [3]
    assert division.cuts == 1


def test_large_graphs_take_linear_time() -> None:
    """Quadratic time would be minutes."""
    x = torch.empty(2, 3, device="meta")
    graph = Graph()
    values = [graph.placeholder("x")]
    for i in range(20_000):
        target = aten.sigmoid.default if i % 5 == 0 else aten.add.Tensor
        operands = (values[-1], values[i // 2]) if i % 5 else (values[i // 3],)
        values.append(graph.call_function(target, operands))
    graph.output((values[-1],))
    for node in graph.nodes:
        node.meta["val"] = x
    gm = GraphModule(torch.nn.Module(), graph)
    start = time.process_time()
    assert divided(gm, SUPPORT, ANY_SIZE).clusters
    assert time.process_time() - start < 20


def test_a_constant_is_made_where_it_is_read() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(x.shape[0], dtype=torch.float32)
        return torch.relu(torch.sigmoid(torch.relu(x + 1) * 2) * steps) + steps

    gm = trace(function, (torch.randn(3, 3),))
    division = divided(gm, SUPPORT, ANY_SIZE)
    assert len(division.clusters) == 2
    assert division.cuts == 2


def test_two_views_of_one_value_cross_as_that_value() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(torch.exp(x) + 1)
        return torch.sigmoid(y.view(3, 2)) @ torch.sigmoid(y.view(2, 3).permute(0, 1))

    gm = trace(function, (torch.randn(6),))
    x = torch.randn(6)
    expected = gm(x)
    small = Settings(min_cluster_size=1, whitelist=("aten.exp",))
    division = divided(gm, rejects(aten.sigmoid.default, aten.matmul.default), small)
    assert [len(cluster.nodes) for cluster in division.clusters] == [3]
    assert (division.cuts_before_repair, division.cuts) == (2, 1)
    codes = [rejection.code for rejection in division.rejections.values()]
    assert codes.count("recomputed") == 3
    gm.recompile()
    torch.testing.assert_close(gm(x), expected, atol=0, rtol=0)


def test_nothing_moves_past_a_write() -> None:
    """The view that PyTorch reads after the write is made before it, in the cluster."""
    x = torch.empty(2, 3, device="meta")
    graph = Graph()
    source = graph.placeholder("x")
    cast = graph.call_function(aten.neg.default, (source,))
    view = graph.call_function(aten.view.default, (cast, [3, 2]))
    other = graph.call_function(aten.view.default, (cast, [6]))
    write = graph.call_function(aten.copy_.default, (source, cast))
    late = [graph.call_function(aten.sigmoid.default, (node,)) for node in (view, other)]
    graph.output((write, *late))
    for node in graph.nodes:
        node.meta["val"] = x
    gm = GraphModule(torch.nn.Module(), graph)
    division = divided(gm, rejects(aten.sigmoid.default, aten.copy_.default), ANY_SIZE)
    assert [cluster.nodes for cluster in division.clusters] == [(cast, view, other)]
    assert division.cuts == division.cuts_before_repair == 3


def test_an_island_in_pytorch_joins_two_clusters() -> None:
    """The lone relu costs two cuts, and what comes after it would have to wait for its cluster."""

    def function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a = torch.sigmoid(torch.relu(torch.sigmoid(x)))
        return torch.exp(torch.relu(a) + 1) * 2, torch.sigmoid(torch.exp(torch.relu(y) + 1) * 2)

    gm = trace(function, (torch.randn(3), torch.randn(3)))
    division = divided(gm, SUPPORT, Settings())
    assert [len(cluster.nodes) for cluster in division.clusters] == [8]
    (detail,) = {r.detail for r in division.rejections.values() if r.code == "too_small"}
    assert "1 compute nodes apart from the rest of the cluster" in detail
    assert (division.cuts_before_repair, division.cuts) == (4, 2)
