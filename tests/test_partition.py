"""Clusters are convex, large enough, explained, and independent of the order of nodes."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from graphs import random_dag, rejects, shuffle
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupport

from fxtrt.capture import trace
from fxtrt.partition import PartitionPlan, partition
from fxtrt.settings import Settings

aten = torch.ops.aten
SUPPORT = rejects(aten.sigmoid.default)
ANY_SIZE = Settings(min_cluster_size=1)


def quotient(gm: GraphModule, plan: PartitionPlan) -> nx.DiGraph[str]:
    """The graph with each cluster as one node."""
    home = {node: cluster.name for cluster in plan.clusters for node in cluster.nodes}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in gm.graph.nodes:
        graph.add_node(home.get(node, node.name))
        for source in node.all_input_nodes:
            a, b = home.get(source, source.name), home.get(node, node.name)
            if a != b:
                graph.add_edge(a, b)
    return graph


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_clusters_are_convex_and_every_call_is_accounted_for(seed: int, size: int) -> None:
    gm = random_dag(seed, size)
    plan = partition(gm, SUPPORT, ANY_SIZE)
    assert nx.is_directed_acyclic_graph(quotient(gm, plan))
    clustered = [node for cluster in plan.clusters for node in cluster.nodes]
    calls = [node for node in gm.graph.nodes if node.op == "call_function"]
    assert sorted(map(str, [*clustered, *plan.rejections])) == sorted(map(str, calls))


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), minimum=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_order_of_nodes_does_not_matter(seed: int, size: int, minimum: int) -> None:
    def outcome(gm: GraphModule) -> tuple[object, ...]:
        originals = set(gm.graph.nodes)
        plan = partition(gm, SUPPORT, Settings(min_cluster_size=minimum))
        clusters = [{n.name for n in c.nodes if n in originals} for c in plan.clusters]
        codes = {n.name: r.code for n, r in plan.rejections.items() if n in originals}
        return clusters, codes, len(gm.graph.nodes), plan.cuts, plan.cuts_before_repair

    shuffled = random_dag(seed, size)
    shuffle(shuffled, seed)
    assert outcome(random_dag(seed, size)) == outcome(shuffled)


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), minimum=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_repair_never_adds_cuts_or_clusters(seed: int, size: int, minimum: int) -> None:
    plan = partition(random_dag(seed, size), SUPPORT, Settings(min_cluster_size=minimum))
    assert plan.cuts <= plan.cuts_before_repair


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_never_more_clusters_than_torch_makes(seed: int, size: int) -> None:
    gm = random_dag(seed, size)

    class Support(OperatorSupport):
        def is_node_supported(self, submodules: object, node: Node) -> bool:
            return node.op == "call_function" and SUPPORT(node, False) is None

    theirs = CapabilityBasedPartitioner(
        gm, Support(), allows_single_node_partition=True
    ).propose_partitions()
    assert len(partition(gm, SUPPORT, ANY_SIZE).clusters) <= len(theirs)


def test_small_clusters_stay_out_and_say_so() -> None:
    gm = trace(lambda x: torch.sigmoid(torch.relu(x) + 1), (torch.randn(2),))
    plan = partition(gm, SUPPORT, Settings(min_cluster_size=3))
    assert plan.clusters == ()
    codes = {node.name: rejection.code for node, rejection in plan.rejections.items()}
    assert codes == {"relu": "too_small", "add": "too_small", "sigmoid": "test"}


def test_views_do_not_count() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x.view(3, 2).permute(1, 0).relu() + 1).view(2, 3, 1)

    gm = trace(function, (torch.randn(2, 3),))
    assert partition(gm, SUPPORT, Settings(min_cluster_size=3)).clusters == ()
    assert len(partition(gm, SUPPORT, Settings(min_cluster_size=2)).clusters) == 1


def test_the_whitelist_lifts_the_minimum_size() -> None:
    gm = trace(lambda x: torch.relu(x), (torch.randn(2),))
    assert len(partition(gm, SUPPORT, Settings(whitelist=("aten.relu",))).clusters) == 1


@pytest.mark.parametrize("entry", ["aten.relu", "aten.relu.default", "rel?", "aten.re*"])
def test_the_blacklist_keeps_nodes_out(entry: str) -> None:
    gm = trace(lambda x: torch.relu(x + 1) * 2, (torch.randn(2),))
    plan = partition(gm, SUPPORT, Settings(min_cluster_size=1, blacklist=(entry,)))
    codes = {node.name: rejection.code for node, rejection in plan.rejections.items()}
    assert codes == {"relu": "blacklist"}
    assert len(plan.clusters) == 2


def test_parallel_branches_share_a_cluster() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x).sin() + torch.relu(torch.sigmoid(y))

    gm = trace(function, (torch.randn(2), torch.randn(2)))
    plan = partition(gm, SUPPORT, ANY_SIZE)
    assert [len(cluster.nodes) for cluster in plan.clusters] == [4]


def test_a_size_never_splits_a_cluster() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x) + 1
        return y.view(y.shape[0] * y.shape[1]) * 2

    gm = trace(function, (torch.randn(2, 3),), dynamic=True)
    plan = partition(gm, SUPPORT, ANY_SIZE)
    assert len(plan.clusters) == 1


def test_a_cut_is_counted_once_for_each_side_that_reads_it() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(x)  # read by PyTorch (twice) and by the second cluster: two cuts
        b = torch.sigmoid(a) + torch.sigmoid(a).sin()  # two values into the second cluster
        return torch.relu(a + b)  # a result is no cut

    gm = trace(function, (torch.randn(2),))
    plan = partition(gm, SUPPORT, ANY_SIZE)
    assert len(plan.clusters) == 2
    assert plan.cuts_before_repair == 4


def test_a_size_read_outside_costs_the_tensor() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.cat([x, x])
        return torch.sigmoid(x).view(y.shape[0] // 2, -1), torch.relu(y) + y.shape[0]

    gm = trace(function, (torch.randn(2, 3),), dynamic=True)
    plan = partition(gm, rejects(aten.sigmoid.default, aten.view.default), ANY_SIZE)
    assert [len(cluster.nodes) for cluster in plan.clusters] == [3]
    assert plan.cuts == 1
