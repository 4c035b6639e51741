"""Replicas in Ray Serve answer each request once, while they are killed and replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from served_files import change_weights, means_file

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx
from http_flood import Flood, flood
from ray_replicas import (
    IN_FLIGHT,
    SMALL,
    environment,
    free_port,
    infer_url,
    options,
    rate_of,
    replicas,
    wait_until,
)
from slow_replica import SlowReplica

from fxtrt.errors import ArtifactError, ServingError, SettingsError
from fxtrt.serving import ray_app
from fxtrt.serving.ray_app import RayOptions, deploy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Ray's own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PORT = free_port()
URL = infer_url(PORT)
TWO = RayOptions(replicas=2)


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("served") / "means.fxtrt"
    return means_file(path)


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


def kill(name: str) -> None:
    import ray

    ray.kill(ray.get_actor(name, namespace="serve"))


def are_gone(names: list[str]) -> bool:
    return not set(replicas()) & set(names)


def update(means: Path, folder: Path, times: int) -> None:
    """Replace the file again and again, and once by a bad one, while requests come."""
    path = folder / "means.fxtrt"
    bad = folder / "bad.fxtrt"
    path.write_bytes(means.read_bytes())
    bad.write_bytes(means.read_bytes())
    change_weights(bad)
    with flood(URL, rate_of(2)) as sent:
        for _ in range(times):
            before = replicas()
            deploy(options(path), TWO, SlowReplica)
            wait_until(partial(are_gone, before))
        before = replicas()
        with pytest.raises(
            ServingError, match=r"not replaced: .* otherwise than when it was saved"
        ):
            deploy(options(bad), TWO, SlowReplica)
        assert replicas() == before
        time.sleep(1)
    assert sent.outcomes == {"right": sent.sent}
    assert sent.sent > 5 * rate_of(2)  # some seconds


def test_a_killed_replica_takes_at_most_its_own_requests(two: None, means: Path) -> None:
    before = replicas()
    assert len(before) == 2
    with flood(URL, rate_of(2)) as sent:
        time.sleep(1)
        kill(before[0])
        wait_until(lambda: len(set(replicas()) - set(before[:1])) == 2)
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
