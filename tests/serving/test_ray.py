"""Replicas in Ray Serve answer each request once, while they are killed and replaced."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served_files import change_weights, means_file

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx
from http_flood import Flood, flood
from slow_replica import SECONDS, SlowReplica

from fxtrt.errors import ArtifactError, ServingError, SettingsError
from fxtrt.serving import ray_app
from fxtrt.serving.ray_app import RayOptions, deploy
from fxtrt.serving.serve_options import ServeOptions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Ray's own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PORT = 18431
URL = f"http://127.0.0.1:{PORT}/v2/models/grey/infer"
TWO = RayOptions(replicas=2)
SLOTS, BATCH = 2, 1
RATE = 0.8 * 2 * SLOTS * BATCH / SECONDS
"""80 % of what two replicas can do."""
IN_FLIGHT = 2 * SLOTS * BATCH
"""The most requests that a replica has: those in its slots, and as many again."""
SMALL: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("served") / "means.fxtrt"
    return means_file(path)


def options(path: Path, **more: Any) -> ServeOptions:
    """Replicas of small batches, with a queue that holds what comes while two cores are busy."""
    given = {"queue_size": 2000, "timeout": 60.0, "slots": SLOTS, "max_batch": BATCH, **more}
    return ServeOptions(path=str(path), name="grey", **given)


@contextmanager
def environment() -> Iterator[None]:
    """Processes of Ray find what this one imports, and report to nobody."""
    names = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, ["fxtrt/..", "tests/support"]))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**names, "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def two(means: Path) -> Iterator[None]:
    """Two replicas, for all tests."""
    with environment():
        try:
            ray_app.start("127.0.0.1", PORT, 60.0, **SMALL)
            deploy(options(means), TWO, SlowReplica)
            yield
        finally:
            ray_app.stop()


def replicas() -> list[str]:
    """The names of the actors that are replicas."""
    from ray.util import list_named_actors

    names = [one["name"] for one in list_named_actors(all_namespaces=True)]
    return sorted(name for name in names if name.startswith("SERVE_REPLICA::"))


def kill(name: str) -> None:
    import ray

    ray.kill(ray.get_actor(name, namespace="serve"))


def wait_for_two(other_than: list[str]) -> None:
    end = time.monotonic() + 60
    while len(set(replicas()) - set(other_than)) < 2 and time.monotonic() < end:
        time.sleep(0.2)


def update(means: Path, folder: Path, times: int) -> None:
    """Replace the file again and again, and once by a bad one, while requests come."""
    path = folder / "means.fxtrt"
    bad = folder / "bad.fxtrt"
    path.write_bytes(means.read_bytes())
    bad.write_bytes(means.read_bytes())
    change_weights(bad)
    with flood(URL, RATE) as sent:
        for _ in range(times):
            before = replicas()
            deploy(options(path), TWO, SlowReplica)
            wait_for_two(before)
            assert not set(replicas()) & set(before)
        before = replicas()
        with pytest.raises(
            ServingError, match=r"not replaced: .* otherwise than when it was saved"
        ):
            deploy(options(bad), TWO, SlowReplica)
        assert replicas() == before
        time.sleep(1)
    assert sent.outcomes == {"right": sent.sent}
    assert sent.sent > 5 * RATE  # some seconds


def test_a_killed_replica_takes_at_most_its_own_requests(two: None, means: Path) -> None:
    before = replicas()
    assert len(before) == 2
    with flood(URL, RATE) as sent:
        time.sleep(1)
        kill(before[0])
        wait_for_two(before[:1])
        time.sleep(1)
    failed = sent.sent - sent.outcomes["right"]
    assert failed <= IN_FLIGHT
    assert all(outcome in ("right", "500", "503") for outcome in sent.outcomes), sent.outcomes


def test_updates_under_load_lose_no_request(two: None, means: Path, tmp_path: Path) -> None:
    update(means, tmp_path, times=1)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_twenty_updates_under_load_lose_no_request(two: None, means: Path, tmp_path: Path) -> None:
    update(means, tmp_path, times=20)


def test_a_full_queue_answers_503_at_once(two: None, means: Path) -> None:
    small = options(means, queue_size=2, slots=1)
    deploy(small, RayOptions(replicas=1), SlowReplica)
    sent = Flood(URL)
    asyncio.run(sent.crowd(64, 1.0))
    assert set(sent.outcomes) == {"right", "503 with Retry-After"}
    assert httpx.get(f"http://127.0.0.1:{PORT}/v2/health/ready").status_code == 200


def test_bad_options_are_refused(tmp_path: Path, means: Path) -> None:
    with pytest.raises(SettingsError, match="replicas must be 1 or more"):
        RayOptions(replicas=0)
    with pytest.raises(SettingsError, match="max_replicas must be replicas, 3, or more, not 2"):
        RayOptions(replicas=3, max_replicas=2)
    cut = tmp_path / "cut.fxtrt"
    cut.write_bytes(means.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="cut short"):
        ray_app.application(options(cut), TWO)


def test_requests_that_wait_start_replicas(means: Path) -> None:
    made = ray_app.application(options(means, slots=3, max_batch=5), RayOptions(max_replicas=4))
    config = made._bound_deployment._deployment_config
    assert (config.max_ongoing_requests, config.max_queued_requests) == (30, 2000)
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    assert scaling.target_ongoing_requests == 15
    assert config.max_surge_percent == 100
