"""Builds run side by side where they may, in order all the same, and end when interrupted."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

from fxtrt.builder import pool as build_pool
from fxtrt.builder.build import (
    BuildInfo,
    BuildResult,
    build,
)
from fxtrt.builder.pool import BuildPool
from fxtrt.builder.progress import BuildProgress
from fxtrt.cache.store import entries
from fxtrt.capture.export import trace
from fxtrt.engines.base import EngineBackend, Progress
from fxtrt.engines.network import Network
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.errors import BuildError
from fxtrt.settings import Settings

HURRY = 30.0
"""Seconds after which a test that waits for another thread gives up."""


class Planner(ReferenceBackend):
    """A backend whose plans have a byte for each layer of their networks, and no engines.

    loading: set when the first plan is loaded: then all builds have been started.
    """

    plans = True

    def __init__(self, build_one: Callable[[int, Progress], None], times_kernels: bool = False):
        super().__init__()
        self._build_one = build_one
        self.times_kernels = times_kernels
        self.loading = threading.Event()

    def build(
        self, network: Network, settings: Settings, progress: Progress | None = None
    ) -> bytes:
        assert progress is not None
        layers: int = network.definition.num_layers
        self._build_one(layers, progress)
        return b"p" * layers

    def load(self, plan: Any, inputs: Any, outputs: Any) -> Any:
        self.loading.set()


@pytest.fixture(autouse=True)
def _eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)


def clusters(count: int, cache_dir: Path | None = None) -> list[tuple[GraphModule, Settings]]:
    """Clusters of 1, 2, 3, ... layers."""

    def of(depth: int) -> GraphModule:
        def function(x: torch.Tensor) -> torch.Tensor:
            for _ in range(depth):
                x = torch.relu(x)
            return x

        return trace(function, (torch.randn(2, 3),))

    settings = Settings(cache_dir=cache_dir)
    return [(of(depth), settings) for depth in range(1, count + 1)]


def plan_sizes(results: list[BuildResult]) -> list[int | None]:
    return [result[1].plan_bytes if isinstance(result, tuple) else None for result in results]


def test_builds_overlap_and_keep_their_order() -> None:
    together = threading.Barrier(3, timeout=HURRY)

    def build_one(layers: int, progress: Progress) -> None:
        together.wait()
        time.sleep(0.1 / layers)  # the last one ends first

    results = build(clusters(3), Planner(build_one))
    assert plan_sizes(results) == [1, 2, 3]


@pytest.mark.parametrize("reason", ["kernels are timed", "no memory", "memory unknown"])
def test_builds_are_alone_where_they_must(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    def build_one(layers: int, progress: Progress) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1

    available = {"no memory": -1, "memory unknown": None}.get(reason, 1 << 40)
    monkeypatch.setattr(build_pool, "_available_bytes", lambda: available)
    backend = Planner(build_one, times_kernels=reason == "kernels are timed")
    assert plan_sizes(build(clusters(4), backend)) == [1, 2, 3, 4]
    assert most == 1


def test_what_running_builds_may_still_take_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_pool, "_available_bytes", lambda: 60)
    release = threading.Event()
    with BuildProgress([1, 1, 1]) as bar, BuildPool(bar, 3) as pool:
        pool.submit(0, 10, lambda progress: release.wait(HURRY))
        pool.wait_for_room(10)  # 3 * (10 + 10) fit into 60
        waiter = threading.Thread(target=pool.wait_for_room, args=(11,))
        waiter.start()
        waiter.join(0.2)
        assert waiter.is_alive()
        release.set()
        waiter.join(HURRY)
        assert not waiter.is_alive()


def test_a_failing_build_leaves_the_others_alone() -> None:
    def build_one(layers: int, progress: Progress) -> None:
        if layers == 2:
            raise BuildError("two is too many")

    results = build(clusters(3), Planner(build_one))
    assert plan_sizes(results) == [1, None, 3]
    assert str(results[1]) == "two is too many"


def test_an_error_that_is_no_failed_build_ends_them_all() -> None:
    def build_one(layers: int, progress: Progress) -> None:
        if layers == 2:
            raise ZeroDivisionError
        while progress(0.5):
            time.sleep(0.01)

    with pytest.raises(ZeroDivisionError):
        build(clusters(2)[::-1], Planner(build_one))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal; a job in the background inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels_builds_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    ended: list[int] = []

    def build_one(layers: int, progress: Progress) -> None:
        if layers == 1:
            return
        if layers == 3:
            main = threading.main_thread().ident
            assert main is not None
            assert backend.loading.wait(HURRY)
            signal.pthread_kill(main, signal.SIGINT)
        deadline = time.monotonic() + HURRY
        while progress(0.5) and time.monotonic() < deadline:
            time.sleep(0.01)
        ended.append(layers)
        raise BuildError("cancelled")

    backend = Planner(build_one)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build(clusters(3, tmp_path), backend)
    assert time.monotonic() - start < HURRY
    assert sorted(ended) == [2, 3]
    assert not any(thread.name.startswith("fxtrt build") for thread in threading.enumerate())
    assert len(entries(tmp_path)) == 1  # of the one that was done
    assert len(list((tmp_path / "plans").iterdir())) == 1


def test_a_second_build_takes_the_plans_from_the_cache(tmp_path: Path) -> None:
    built: list[int] = []
    backend = Planner(lambda layers, progress: built.append(layers))
    for cached in (False, True):
        results = build(clusters(3, tmp_path), backend)
        assert plan_sizes(results) == [1, 2, 3]
        assert all(isinstance(r, tuple) and r[1].cached == cached for r in results)
    assert sorted(built) == [1, 2, 3]


def test_what_stays_in_float32_is_kept_with_the_plan(tmp_path: Path) -> None:
    wide = torch.full((2, 2, 1, 1), 1e6)
    cluster = trace(lambda x: torch.nn.functional.conv2d(x, wide), (torch.rand(1, 2, 3, 3),))
    settings = Settings(precision="fp16", cache_dir=tmp_path)
    infos = []
    for _ in range(2):
        (result,) = build([(cluster, settings)], Planner(lambda layers, progress: None))
        assert isinstance(result, tuple)
        infos.append(result[1])
    assert [info.cached for info in infos] == [False, True]
    assert infos[1].kept_fp32 == infos[0].kept_fp32
    assert [kept.partition(":")[0] for kept in infos[0].kept_fp32] == ["convolution"]


def test_an_engine_without_a_plan_is_loaded_from_its_network(reference: EngineBackend) -> None:
    (result,) = build(clusters(1), reference)
    assert isinstance(result, tuple)
    engine, info = result
    assert engine is not None
    assert info == BuildInfo(info.seconds, layers=1, plan_bytes=None, cached=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "seconds", "shown"),
    [(Terminal(), 3.0, True), (Terminal(), 1.0, False), (io.StringIO(), 3.0, False)],
    ids=["long, on a terminal", "short", "into a file"],
)
def test_progress_is_shown_on_a_terminal_when_it_takes_long(
    stream: io.StringIO, seconds: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    now = 0.0
    with BuildProgress([1, 3], clock=lambda: now) as bar:
        bar.update(0, 1.0)
        now = seconds
        bar.update(1, 0.5)
    assert ("building engines: 1 of 2" in stream.getvalue()) == shown
    assert ("62%" in stream.getvalue()) == shown  # (1 * 1.0 + 3 * 0.5) of 4
