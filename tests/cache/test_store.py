"""Plans come back as they went in, whoever else writes, and the least used leave first."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fxtrt.cache.engine_key import EngineKey
from fxtrt.cache.plan_file import (
    PlanHeader,
    read_header,
    read_plan,
)
from fxtrt.cache.store import (
    PlanCache,
    entries,
    evict,
)
from fxtrt.files.temporary_file import (
    _began,
    _machine,
    temporary_name,
)
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
    assert path == cache.path(KEY)
    assert path.name == f"{KEY.digest}.plan"
    assert read_header(path) == HEADER


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-1], id="cut short"),
        pytest.param(lambda data: data[:20], id="no header"),
        pytest.param(lambda data: data[:-1] + b"X", id="changed"),
        pytest.param(lambda data: data.replace(b"backbone", b"headbone"), id="changed header"),
        pytest.param(lambda data: data.replace(b"plan 4", b"plan 3"), id="another version"),
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


@pytest.mark.parametrize("content", [b"", b"fxtrt", b"notes of mine", b"x" * 500])
def test_a_file_that_fxtrt_did_not_write_is_left_alone(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", HEADER)
    file = cache.path(KEY)
    file.write_bytes(content)
    assert cache.get(KEY) is None
    cache.put(KEY, b"plan", HEADER)
    assert "move it away" in caplog.text
    evict(tmp_path, 1)
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ESTALE", "EACCES", "EIO", "ENOMEM"])
def test_a_plan_that_cannot_be_read_now_is_kept(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", HEADER)
    number, really = getattr(errno, name), os.open

    def fail(path: Any, *arguments: Any) -> int:
        if str(path).endswith(".plan"):
            raise OSError(number, os.strerror(number), str(path))
        return really(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        assert cache.get(KEY) is None
        assert "cannot be read now" in caplog.text
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


def temporary(cache: PlanCache, process: subprocess.Popen[bytes] | None = None) -> Path:
    """A file that this process writes, or another one; 10,000 bytes of it so far."""
    name = temporary_name()
    if process is not None:
        began = _began(process.pid)
        name = f".fxtrt-{_machine()}-{process.pid}-{began}-{'0' * 16}.tmp"
    path = cache.path(KEY).with_name(name)
    path.write_bytes(b"fxtrt plan 4\n".ljust(10_000, b"x"))
    return path


def test_what_is_being_written_counts_and_is_left(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.put(KEY, bytes(10_000), HEADER)
    writing = temporary(cache)
    os.utime(writing, (0, 0))
    evict(tmp_path, 25_000)
    assert len(entries(tmp_path)) == 1
    evict(tmp_path, 15_000)
    assert entries(tmp_path) == []
    assert writing.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for processes")
@pytest.mark.parametrize("limit", [None, 15_000])
def test_what_a_killed_process_left_goes_first(limit: int | None, tmp_path: Path) -> None:
    first, second = keys(2)
    cache = PlanCache(tmp_path, limit_bytes=limit)
    cache.put(first, b"plan", HEADER)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        written = temporary(cache, process)
        cache.put(first, b"plan", HEADER)
        assert written.exists()
        process.kill()
    cache.put(second, b"plan", HEADER)
    assert not written.exists()
    assert {entry.digest for entry in entries(tmp_path)} == {first.digest, second.digest}


def test_room_is_made_before_a_plan_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = keys(2)
    cache = PlanCache(tmp_path, limit_bytes=15_000)
    cache.put(first, bytes(10_000), HEADER)
    seen: list[list[str]] = []

    def note(path: Path, header: PlanHeader, plan: bytes) -> None:
        seen.append([entry.digest for entry in entries(tmp_path)])

    monkeypatch.setattr("fxtrt.cache.store.write_plan", note)
    cache.put(second, bytes(10_000), HEADER)
    assert seen == [[]]


def test_the_settings_name_the_cache(tmp_path: Path) -> None:
    assert PlanCache.of(Settings(cache_dir=None)) is None
    cache = PlanCache.of(Settings(cache_dir=tmp_path, cache_limit_bytes=1))
    assert cache is not None
    cache.put(KEY, b"plan", HEADER)
    assert entries(tmp_path) == []


_WRITER = """
import sys
from pathlib import Path
from test_store import HEADER, keys
from fxtrt.cache.store import PlanCache

cache, letter = PlanCache(Path(sys.argv[1]), limit_bytes=1 << 20), sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
for turn in range(20):
    for key in keys(4):
        size = 50_000 + 2991 * turn
        cache.put(key, letter * size, HEADER)
        stored = cache.get(key)
        plan = stored.plan if stored else b""
        assert plan == plan[:1] * len(plan), "a mixture of two plans"
"""


def test_two_processes_that_write_at_once_do_not_mix_their_plans(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])
    }
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
