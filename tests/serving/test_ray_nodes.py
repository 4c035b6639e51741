"""Replicas on two nodes: when one node goes, its requests fail and all others are answered."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from served_files import means_file

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from http_flood import flood
from ray_replicas import (
    IN_FLIGHT,
    environment,
    free_port,
    infer_url,
    options,
    rate_of,
    replicas,
    wait_until,
)
from slow_replica import SlowReplica

from fxtrt.serving import ray_app
from fxtrt.serving.ray_app import RayOptions, deploy

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    # Ray's own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
MEMORY = 100 << 20


def nodes_of_replicas() -> dict[str, str]:
    """The node of each replica."""
    import ray
    from ray._private.state import actors

    wanted = set(replicas())
    nodes = {one["NodeID"]: one["Alive"] for one in ray.nodes()}
    found = {one["Name"]: one["Address"]["NodeID"] for one in actors().values()}
    return {name: found[name] for name in wanted & set(found) if nodes.get(found[name])}


def test_a_node_that_goes_takes_at_most_its_own_requests(tmp_path: Path) -> None:
    means = means_file(tmp_path / "means.fxtrt")
    with environment():
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": MEMORY},
        )
        try:
            second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            with environment(RAY_ADDRESS=cluster.address):
                lose(cluster, second, means)
        finally:
            ray_app.stop()
            cluster.shutdown()


def lose(cluster: object, node: object, means: Path) -> None:
    """Remove a node from a cluster, under load, and wait until the other has its replicas too."""
    port = free_port()
    ray_app.start("127.0.0.1", port, 60.0)
    deploy(options(means), RayOptions(replicas=2), SlowReplica)
    there = list(nodes_of_replicas().values())
    assert len(set(there)) == 2
    with flood(infer_url(port), rate_of(2)) as sent:
        time.sleep(1)
        cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]  # Ray's
        wait_until(
            lambda: len(nodes_of_replicas()) == 2 and len(set(nodes_of_replicas().values())) == 1
        )
        time.sleep(2)
    failed = sent.sent - sent.outcomes["right"]
    assert failed <= IN_FLIGHT
    assert all(outcome in ("right", "500", "503") for outcome in sent.outcomes), sent.outcomes
