"""`fxtrt cache` lists, removes and checks the plans of a directory."""

from __future__ import annotations

import os
import pwd
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result

from fxtrt.cache.engine_key import EngineKey
from fxtrt.cache.plan_file import PlanHeader
from fxtrt.cache.store import PlanCache, entries
from fxtrt.cli.cache import cache
from fxtrt.errors import CacheError, SettingsError

HEADER = PlanHeader("tensorrt", "TensorRT 10 for H200 (sm90)", "backbone", 12, "2.14.0", 0.0)
A, B = EngineKey("a" * 64), EngineKey("b" * 64)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Plan a, made two days ago and used five minutes ago, and plan b, just made."""
    now, plans = time.time(), PlanCache(tmp_path)
    plans.put(A, bytes(1 << 20), replace(HEADER, created=now - 2 * 86400))
    os.utime(tmp_path / "plans" / f"{A.digest}.plan", (now - 300,) * 2)
    plans.put(B, b"plan", replace(HEADER, modules="", nodes=3, created=now))
    return tmp_path


def no_user(number: int) -> NoReturn:
    raise KeyError(number)


def run(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cache, ["--cache-dir", str(directory), *arguments])


def test_ls_says_what_each_plan_is_for(directory: Path) -> None:
    _, _, second, first, _, total = run(directory, "ls").output.splitlines()
    assert first.split()[:9] == ["a" * 12, "plan", "1.0", "MiB", "2", "d", "5", "min", "12"]
    assert first.split()[9:] == ["backbone", "tensorrt", "TensorRT", "10", "for", "H200", "(sm90)"]
    assert second.startswith("b" * 12)
    assert "(model)" in second
    assert total == f"2 files, 1.0 MiB in {directory}"


def test_ls_of_a_cache_that_does_not_exist(tmp_path: Path) -> None:
    result = run(tmp_path / "none", "ls")
    assert (result.exit_code, result.output) == (0, f"0 files, 0.0 MiB in {tmp_path / 'none'}\n")


def test_ls_takes_the_directory_from_the_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FXTRT_CACHE_DIR", str(directory))
    assert f"2 files, 1.0 MiB in {directory}" in CliRunner().invoke(cache, ["ls"]).output


def test_rm_removes_what_its_arguments_name(directory: Path) -> None:
    assert run(directory, "rm", "aaa").output == "removed 1 file, 1.0 MiB\n"
    assert [entry.digest for entry in entries(directory)] == [B.digest]
    assert run(directory, "rm", "--all").output == "removed 1 file, 0.0 MiB\n"
    assert entries(directory) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "c"], "no key begins with 'c'"),
        ([], "or --all"),
        (["a", "--all"], "or --all"),
        ([""], "a key is empty"),
        (["a", ""], "a key is empty"),
    ],
)
def test_rm_removes_nothing_where_it_is_not_sure(
    directory: Path, arguments: list[str], message: str
) -> None:
    result = run(directory, "rm", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(entries(directory)) == 2


def test_verify_names_the_damaged_plan_and_leaves_it(directory: Path) -> None:
    result = run(directory, "verify")
    assert result.exit_code == 0
    assert result.output == f"2 files, 1.0 MiB in {directory}, 0 damaged\n"
    file = directory / "plans" / f"{A.digest}.plan"
    file.write_bytes(file.read_bytes()[:-1] + b"X")
    result = run(directory, "verify")
    assert result.exit_code == 1
    assert f"{file} is damaged" in result.output
    assert "1 damaged" in result.output
    file.write_bytes(b"")
    assert "(damaged)" in run(directory, "ls").output


def test_ls_prints_no_escape_codes_and_no_long_texts(tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[31m\u202e\ud800\nnext"
    PlanCache(tmp_path).put(A, b"plan", replace(HEADER, modules=evil, engine="e" * 5000))
    output = run(tmp_path, "ls").output
    assert r"\x1b]0;title\x07\x1b[31m\u202e\ud800\nnext" in output
    assert "\x1b" not in output
    assert "e" * 99 + "…" in output
    assert "e" * 100 not in output


def test_ls_says_which_plan_has_an_odd_header(tmp_path: Path) -> None:
    odd: dict[str, Any] = {"nodes": {"a": 1}, "created": "\x1b[31m"}
    PlanCache(tmp_path).put(A, b"plan", replace(HEADER, **odd))
    assert "(damaged)" in run(tmp_path, "ls").output
    assert "\x1b" not in run(tmp_path, "ls").output


@pytest.mark.parametrize("arguments", [["ls"], ["rm", "--all"], ["verify"]])
def test_a_folder_of_others_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fxtrt").mkdir()
    (tmp_path / "fxtrt" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CacheError, match="no plan cache"):
        CliRunner().invoke(cache, ["--cache-dir", ".", *arguments], catch_exceptions=False)
    with pytest.raises(SettingsError, match="cache_dir cannot be ''"):
        CliRunner().invoke(cache, ["--cache-dir", "", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("arguments", [["ls"], ["rm", "--all"], ["verify"]])
def test_a_folder_that_cannot_be_looked_at_is_one_line(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, reason in (("loop", "symbolic links"), ("n" * 300, "too long")):
        command = ["--cache-dir", str(tmp_path / name), *arguments]
        with pytest.raises(CacheError, match=f"cannot be looked at: .*{reason}"):
            CliRunner().invoke(cache, command, catch_exceptions=False)


def test_without_a_home_it_asks_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FXTRT_CACHE_DIR", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_user)
    result = CliRunner().invoke(cache, ["ls"])
    assert result.exit_code == 2
    assert "FXTRT_CACHE_DIR" in result.output
