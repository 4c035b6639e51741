"""The cache touches files of its own only, in a folder that is the cache's."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from fuzzing import fuzz
from hypothesis import strategies as st

from fxtrt.cache.engine_key import EngineKey
from fxtrt.cache.folder import cache_folder
from fxtrt.cache.plan_file import PlanHeader, write_plan
from fxtrt.cache.store import (
    PlanCache,
    entries,
    evict,
)
from fxtrt.cli.cache import cache as command
from fxtrt.errors import CacheError
from fxtrt.files.temporary_file import temporary_name
from fxtrt.settings import Settings

KEY = EngineKey("0" * 64)
HEADER = PlanHeader("reference", "no GPU", "backbone", 12, "2.15.0", 1.5)


def put(directory: Path, limit: int | None = None) -> Path:
    """Put a plan into the cache, which must take it; returns where it is."""
    cache = PlanCache(directory, limit_bytes=limit)
    cache.put(KEY, b"plan", HEADER)
    assert cache.get(KEY) == (HEADER, b"plan")
    return cache.path(KEY).parent.parent


def test_a_new_folder_is_marked(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    assert put(directory) == directory
    marker = (directory / "CACHEDIR.TAG").read_text()
    assert marker.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert "fxtrt" in marker


def test_an_empty_folder_becomes_the_cache_and_stays_it(tmp_path: Path) -> None:
    assert put(tmp_path) == tmp_path
    (tmp_path / "notes.txt").write_text("mine")
    assert put(tmp_path) == tmp_path


@pytest.mark.parametrize("name", [".env", "src", "CACHEDIR.TAG"])
def test_a_folder_with_other_files_has_the_cache_in_a_subfolder(name: str, tmp_path: Path) -> None:
    other = tmp_path / name
    if name == "src":
        other.mkdir()
    else:  # another program's marker
        other.write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of cargo\n")
    for _ in range(2):
        assert put(tmp_path) == tmp_path / "fxtrt"
    assert {path.name for path in tmp_path.iterdir()} == {name, "fxtrt"}


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_subfolder_of_others_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "setup.py").write_text("")
    other = tmp_path / "fxtrt"
    if kind == "folder":
        other.mkdir()
        (other / "__init__.py").write_text("")
    elif kind == "file":
        other.write_text("a program")
    else:
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "__init__.py").write_text("")
        other.symlink_to("package")
    for act in (cache_folder, entries, lambda directory: evict(directory, 1)):
        with pytest.raises(CacheError, match="Name an empty folder"):
            act(tmp_path)
    with pytest.raises(CacheError, match="Name an empty folder"):
        PlanCache.of(Settings(cache_dir=tmp_path))


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CacheError, match="Name an empty folder"):
        PlanCache.of(Settings(cache_dir=tmp_path / "file"))


def test_a_folder_of_plans_without_a_marker_is_taken_for_a_cache(tmp_path: Path) -> None:
    """As other versions made it, and as it is unpacked from a file."""
    (tmp_path / "plans").mkdir()
    write_plan(tmp_path / "plans" / f"{KEY.digest}.plan", HEADER, b"plan")
    assert PlanCache(tmp_path).get(KEY) == (HEADER, b"plan")
    assert put(tmp_path) == tmp_path
    assert (tmp_path / "CACHEDIR.TAG").exists()


def test_a_project_with_a_folder_of_plans_is_not(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "house.plan").write_text("two floors")
    assert put(tmp_path, limit=1000) == tmp_path / "fxtrt"


def test_a_marker_that_another_process_is_writing_fills_no_folder(tmp_path: Path) -> None:
    (tmp_path / temporary_name()).write_bytes(b"Signature")
    assert put(tmp_path) == tmp_path


def test_all_who_make_the_cache_at_once_make_the_same_one(tmp_path: Path) -> None:
    digests = [f"{number:064x}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            directory = tmp_path / f"{turn}"
            puts = [
                pool.submit(PlanCache(directory).put, EngineKey(digest), b"plan", HEADER)
                for digest in digests
            ]
            for one in puts:
                one.result()
            assert cache_folder(directory) == directory
            assert sorted(entry.digest for entry in entries(directory)) == digests
            assert {path.name for path in directory.iterdir()} == {"CACHEDIR.TAG", "plans"}


def test_nobody_else_may_write_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        root = put(tmp_path / "cache")
    finally:
        os.umask(before)
    for path in (root / "plans", *(root / "plans").iterdir(), root / "CACHEDIR.TAG"):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / ".keep").write_text("")
    os.utime(tmp_path / ".git" / ".keep", (0, 0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FXTRT_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert Settings.from_env().cache_dir == tmp_path / "home" / "fxtrt"
    cache = PlanCache.of(Settings.of())
    assert cache is not None
    cache.put(KEY, b"plan", HEADER)
    assert {path.name for path in tmp_path.iterdir()} == {".git", "home"}
    assert (tmp_path / ".git" / ".keep").exists()


_FOLDERS = ("", "src", ".git", "plans", "timings", "fxtrt", "fxtrt/plans", "deploy")
_NAMES = (
    ".env",
    ".keep",
    ".htpasswd",
    "notes",
    "0" * 64 + ".plan",
    "1" * 64 + ".plan",
    "2" * 64 + ".timing",
    "house.plan",
    ".fxtrt-1-1-1.tmp",
    f".fxtrt-{'0' * 16}-1-1-{'0' * 16}.tmp",
)
_CONTENTS = (b"mine", b"SECRET=1\n", b"x" * 3000, b"fxtrt plane", b"fxtrt is a package")
_FOREIGN = st.dictionaries(
    st.tuples(st.sampled_from(_FOLDERS), st.sampled_from(_NAMES)),
    st.sampled_from(_CONTENTS),
    max_size=12,
)
_STEPS = st.lists(
    st.sampled_from(("put", "put timing", "get", "evict", "sweep", "rm --all", "verify")),
    min_size=1,
    max_size=6,
)


def written(root: Path, foreign: dict[tuple[str, str], bytes]) -> Iterator[tuple[Path, bytes]]:
    """Make the files, each years old and in folders of its own."""
    for (folder, name), content in foreign.items():
        path = root / folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (0, 0))
            yield path, content


def act(directory: Path, step: str) -> None:
    """One thing that people do with a cache; that it refuses the folder is as good."""
    kind = "timing" if "timing" in step else "plan"
    cache = PlanCache(directory, kind, limit_bytes=1000)
    with contextlib.suppress(CacheError):
        if step.startswith("put"):
            for digit in "012":
                cache.put(EngineKey(digit * 64), bytes(300), HEADER)
        elif step == "get":
            for digit in "012":
                cache.get(EngineKey(digit * 64))
        elif step in ("evict", "sweep"):
            evict(directory, 1 if step == "evict" else None)
        else:
            result = CliRunner().invoke(command, ["--cache-dir", str(directory), *step.split()])
            assert isinstance(result.exception, CacheError | SystemExit | None)


@pytest.mark.parametrize("marked", [False, True])
def test_fuzz_no_file_of_others_is_ever_changed(marked: bool) -> None:
    """Wherever it is, whatever it is called, however old it is."""

    def check(foreign: dict[tuple[str, str], bytes], steps: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            if marked:
                put(directory)
            before = dict(written(directory, foreign))
            for step in steps:
                act(directory, step)
            assert {path: path.read_bytes() for path in before} == before

    fuzz(check, _FOREIGN, _STEPS, examples=60)
