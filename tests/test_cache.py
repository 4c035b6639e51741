"""Plans come back as they went in, whoever else writes, and the least used leave first."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fxtrt.cache import PlanCache, entries, evict
from fxtrt.engine_key import EngineKey
from fxtrt.plan_file import PlanHeader, read_header, read_plan
from fxtrt.settings import Settings

KEY = EngineKey("0" * 64)
HEADER = PlanHeader(
    "reference", "TensorRT 1 for no GPU", "backbone", 12, "2.14.0", 0.0, ("mul: 1e9",)
)


def keys(count: int) -> list[EngineKey]:
    return [EngineKey(f"{number:064x}") for number in range(count)]


def test_a_plan_comes_back_as_it_went_in(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, b"plan", HEADER)
    assert cache.get(KEY) == (HEADER, b"plan")
    (path,) = (tmp_path / "plans").iterdir()
    assert path.name == f"{KEY.digest}.plan"
    assert read_header(path) == HEADER


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="cut short"),
        pytest.param(lambda data: data[:10], id="no header"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1] + b"X", id="changed"),
        pytest.param(lambda data: data.replace(b"backbone", b"headbone"), id="changed header"),
        pytest.param(lambda data: b"x" + data[1:], id="another format"),
        pytest.param(lambda data: data[:13] + b"\xff" * 8 + data[21:], id="absurd lengths"),
    ],
)
def test_a_damaged_file_counts_as_absent(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", HEADER)
    (file,) = (tmp_path / "plans").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    assert "built again" in caplog.text
    assert not file.exists()
    cache.put(KEY, b"plan", HEADER)
    assert cache.get(KEY) == (HEADER, b"plan")


def test_a_directory_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        PlanCache(blocked).put(KEY, b"plan", HEADER)
    assert "could not be written" in caplog.text


def test_the_least_recently_used_leaves_first(tmp_path: Path) -> None:
    first, second, third = keys(3)
    plan, long_ago = bytes(10_000), time.time() - 1000
    unlimited = PlanCache(tmp_path)
    for age, key in enumerate((first, second)):
        unlimited.put(key, plan, HEADER)
        os.utime(tmp_path / "plans" / f"{key.digest}.plan", (long_ago + age, long_ago + age))
    assert unlimited.get(first) == (HEADER, plan)  # which makes the second the least recently used
    PlanCache(tmp_path, limit_bytes=25_000).put(third, plan, HEADER)
    assert {entry.digest for entry in entries(tmp_path)} == {first.digest, third.digest}


def test_the_limit_counts_every_kind_of_file(tmp_path: Path) -> None:
    PlanCache(tmp_path).put(KEY, bytes(10_000), HEADER)
    PlanCache(tmp_path, "timing").put(KEY, bytes(10_000), HEADER)
    assert [entry.kind for entry in entries(tmp_path)] == ["timing", "plan"]
    evict(tmp_path, 15_000)
    assert [entry.kind for entry in entries(tmp_path)] == ["timing"]


def test_a_plan_that_exceeds_the_limit_drives_out_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, large = keys(2)
    cache = PlanCache(tmp_path, limit_bytes=5_000)
    cache.put(small, b"plan", HEADER)
    cache.put(large, bytes(10_000), HEADER)
    assert "cache_limit_bytes" in caplog.text
    assert cache.get(small) == (HEADER, b"plan")


def test_eviction_leaves_what_is_being_written_and_sweeps_what_was_abandoned(
    tmp_path: Path,
) -> None:
    PlanCache(tmp_path).put(KEY, b"plan", HEADER)
    writing, abandoned = tmp_path / "plans" / ".new", tmp_path / "plans" / ".old"
    for path, age in ((writing, 60), (abandoned, 3 * 24 * 3600)):
        path.write_bytes(b"half a pl")
        os.utime(path, (time.time() - age,) * 2)
    evict(tmp_path, 1)
    assert [path.name for path in (tmp_path / "plans").iterdir()] == [".new"]


def test_the_settings_name_the_cache(tmp_path: Path) -> None:
    assert PlanCache.of(Settings(cache_dir=None)) is None
    cache = PlanCache.of(Settings(cache_dir=tmp_path, cache_limit_bytes=1))
    assert cache is not None
    cache.put(KEY, b"plan", HEADER)
    assert entries(tmp_path) == []


_WRITER = """
import sys
from pathlib import Path
from test_cache import HEADER, keys
from fxtrt.cache import PlanCache

cache, letter = PlanCache(Path(sys.argv[1]), limit_bytes=1 << 20), sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
for turn in range(60):
    for key in keys(4):
        size = 50_000 + 997 * turn
        cache.put(key, letter * size, HEADER)
        stored = cache.get(key)
        plan = stored.plan if stored else b""
        assert plan == plan[:1] * len(plan), "a mixture of two plans"
"""


def test_two_processes_that_write_at_once_do_not_mix_their_plans(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), letter],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for letter in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        _, errors = writer.communicate("go\n")
        assert writer.returncode == 0, errors
        assert "damaged" not in errors
    found = entries(tmp_path)
    assert [entry.digest for entry in sorted(found, key=lambda e: e.digest)] == [
        key.digest for key in keys(4)
    ]
    for entry in found:
        assert set(read_plan(entry.path).plan) in ({ord("a")}, {ord("b")})
    assert [path for path in (tmp_path / "plans").iterdir() if path.name.startswith(".")] == []
