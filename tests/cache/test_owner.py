"""A plan that another user may have written does not run, and is not removed either."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from fxtrt.cache.engine_key import EngineKey
from fxtrt.cache.plan_file import PlanHeader
from fxtrt.cache.store import (
    PlanCache,
    entries,
    evict,
)
from fxtrt.cli.cache import cache as command
from fxtrt.settings import Settings

KEY = EngineKey("0" * 64)
HEADER = PlanHeader("reference", "no GPU", "backbone", 12, "2.15.0", 1.5)
OTHER = 54321


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    """One with a plan, in a folder that everybody may enter."""
    tmp_path.chmod(0o755)
    cache = PlanCache(tmp_path)
    cache.put(KEY, b"plan", HEADER)
    return cache


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it another user's, or this process another user's."""
    if os.geteuid() == 0:
        os.chown(path, OTHER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)


def trusting(cache: PlanCache) -> PlanCache:
    return PlanCache(cache.path(KEY).parent.parent, trust="anyone")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(
    mode: int, cache: PlanCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.path(KEY).chmod(mode)
    assert cache.get(KEY) is None
    assert f"{cache.path(KEY)} (mode {mode:04o})" in caplog.text
    assert "cache_trust" in caplog.text
    assert trusting(cache).get(KEY) == (HEADER, b"plan")
    cache.put(KEY, b"new", HEADER)  # it is this user's own, so it may be replaced
    assert cache.get(KEY) == (HEADER, b"new")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_folder_that_others_may_write_is_refused(
    mode: int, cache: PlanCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.path(KEY).parent.chmod(mode)
    assert cache.get(KEY) is None
    assert f"other users may write to {cache.path(KEY).parent}" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert trusting(cache).get(KEY) == (HEADER, b"plan")
    assert "runs all the same" in caplog.text


@pytest.mark.parametrize("closed", ["folder", "root"])
def test_inside_a_folder_that_only_its_owner_enters_modes_do_not_matter(
    closed: str, cache: PlanCache
) -> None:
    path = cache.path(KEY)
    path.chmod(0o666)
    if closed == "folder":
        path.parent.chmod(0o700)
    else:
        path.parent.chmod(0o777)
        path.parent.parent.chmod(0o700)
    assert cache.get(KEY) == (HEADER, b"plan")


@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_is_another_users_is_neither_run_nor_removed(
    place: str,
    cache: PlanCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = cache.path(KEY)
    give_away(path if place == "file" else path.parent, monkeypatch)
    assert cache.get(KEY) is None
    assert "belongs to another user" in caplog.text
    assert trusting(cache).get(KEY) == (HEADER, b"plan")


def test_another_users_plan_is_not_replaced_removed_or_counted(
    cache: PlanCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, root = cache.path(KEY), cache.path(KEY).parent.parent
    content = path.read_bytes()
    give_away(path, monkeypatch)
    cache.put(KEY, b"another", HEADER)
    assert "belongs to another user" in caplog.text
    evict(root, 1)
    result = CliRunner().invoke(command, ["--cache-dir", str(root), "rm", "--all"])
    assert result.exit_code == 1
    assert result.output.startswith("removed 0 files, 0.0 MiB\n")
    assert f"left {path}" in result.output
    path.write_bytes(content[:-1] + b"X")
    assert trusting(cache).get(KEY) is None  # it is damaged, and yet another user's
    assert path.exists()
    assert [entry.mine for entry in entries(root)] == [False]


def test_the_limit_is_each_users_own(
    tmp_path: Path, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes files of two users")
    give_away(cache.path(KEY), monkeypatch)
    mine = EngineKey("1" * 64)
    limited = PlanCache(tmp_path, limit_bytes=10_000)
    os.truncate(cache.path(KEY), 1 << 20)
    limited.put(mine, b"plan", HEADER)
    assert limited.get(mine) == (HEADER, b"plan")


def test_verify_names_what_is_refused(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.path(KEY).chmod(0o666)
    arguments = ["--cache-dir", str(cache.path(KEY).parent.parent), "verify"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1
    assert f"other users may write to {cache.path(KEY)}" in result.output
    assert result.output.endswith("0 damaged, 1 refused\n")
    monkeypatch.setenv("FXTRT_CACHE_TRUST", "anyone")
    assert CliRunner().invoke(command, arguments).exit_code == 0


def test_the_setting_reaches_the_cache(cache: PlanCache) -> None:
    cache.path(KEY).chmod(0o666)
    directory = cache.path(KEY).parent.parent
    for trust, found in (("owner", None), ("anyone", (HEADER, b"plan"))):
        of_settings = PlanCache.of(Settings(cache_dir=directory, cache_trust=trust))
        assert of_settings is not None
        assert of_settings.get(KEY) == found
