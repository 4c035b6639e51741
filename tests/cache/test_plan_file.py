"""A file of a plan comes back whole, or all that is wrong with it is a CacheError."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from fuzzing import fuzz
from hypothesis import strategies as st

from fxtrt.cache.engine_key import EngineKey
from fxtrt.cache.plan_file import (
    _LENGTHS,
    _MAGIC,
    _PREFIX_BYTES,
    FAMILY,
    PlanHeader,
    opened,
    parse_plan,
    read_header,
    read_plan,
    write_plan,
)
from fxtrt.cache.store import PlanCache
from fxtrt.errors import CacheError

HEADER = PlanHeader("reference", "no GPU", "backbone", 12, "2.15.0", 1.5, ("mul: 1e9",))
NAME = f"{'0' * 64}.plan"
KEY = EngineKey("0" * 64)


def sealed(described: bytes, plan: bytes, name: str = NAME) -> bytes:
    """A file whose digests are right, whatever its header holds."""
    lengths = _LENGTHS.pack(_MAGIC, len(described), len(plan), hashlib.sha256(plan).digest())
    start = b"\0".join((name.encode(), lengths, described))
    return lengths + hashlib.sha256(start).digest() + described + plan


GOOD = sealed(json.dumps(asdict(HEADER)).encode(), b"plan")


def test_the_format_is_the_one_that_is_written(tmp_path: Path) -> None:
    write_plan(tmp_path / NAME, HEADER, b"plan")
    assert (tmp_path / NAME).read_bytes() == GOOD
    assert read_plan(tmp_path / NAME) == (HEADER, b"plan")
    assert read_header(tmp_path / NAME) == HEADER


def test_a_plan_under_another_name_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path / NAME, HEADER, b"plan")
    other = tmp_path / f"{'1' * 64}.plan"
    (tmp_path / NAME).rename(other)
    for read in (read_plan, read_header):
        with pytest.raises(CacheError, match="renamed"):
            read(other)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link", "dangling link", "device"])
def test_what_is_no_regular_file_is_neither_read_nor_waited_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = tmp_path / NAME, tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # the whole path may be longer than a socket's
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(NAME)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to(target)
        if kind == "link":
            write_plan(target, HEADER, b"plan")
    with pytest.raises(CacheError, match="no regular file"):
        read_plan(path)


class Counting:
    """An open file that counts the bytes that are asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.asked = file, 0

    def read(self, size: int) -> bytes:
        self.asked += size
        return self.file.read(size)

    def fileno(self) -> int:
        return self.file.fileno()


@pytest.mark.parametrize("claimed", [False, True])
def test_a_hole_is_noticed_before_it_is_read(claimed: bool, tmp_path: Path) -> None:
    """Also where the length in the file was changed with it."""
    path, size = tmp_path / NAME, 1 << 40
    path.write_bytes(GOOD)
    if claimed:
        _, header_length, _, digest = _LENGTHS.unpack(GOOD[: _LENGTHS.size])
        length = size - _PREFIX_BYTES - header_length
        lengths = _LENGTHS.pack(_MAGIC, header_length, length, digest)
        path.write_bytes(lengths + GOOD[_LENGTHS.size :])
    os.truncate(path, size)
    with opened(path) as file:
        counting: Any = Counting(file)
        with pytest.raises(CacheError, match="damaged"):
            parse_plan(counting, path)
    assert counting.asked < 2 << 20


WRONG_FIELDS: list[tuple[str, Any]] = [
    ("engine", 5),
    ("engine", None),
    ("runs_on", ["x"]),
    ("modules", {}),
    ("nodes", "12"),
    ("nodes", True),
    ("nodes", -1),
    ("nodes", 2**70),
    ("created", 0),
    ("created", float("nan")),
    ("created", 1e300),
    ("created", -1.0),
    ("kept_fp32", "mul"),
    ("kept_fp32", [1]),
    ("another", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_header_of_other_types_is_damage(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(sealed(json.dumps({**asdict(HEADER), name: value}).encode(), b"plan"))
    for read in (read_plan, read_header):
        with pytest.raises(CacheError, match="damaged"):
            read(path)


_POSITION = st.integers(0, len(GOOD))
_EDIT = st.tuples(_POSITION, _POSITION, st.binary(max_size=40))


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """The good file with parts exchanged, or with other lengths, or nothing of it at all."""
    data = GOOD
    for start, end, inserted in draw(st.lists(_EDIT, max_size=4)):
        data = data[:start] + inserted + data[draw(st.sampled_from((start, end))) :]
    if draw(st.booleans()) and len(data) >= _LENGTHS.size:
        lengths = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**64 - 1))
        data = _LENGTHS.pack(_MAGIC, *lengths, bytes(32)) + data[_LENGTHS.size :]
    return draw(st.one_of(st.just(data), st.binary(max_size=400)))


def test_fuzz_damage_is_a_cache_error_and_nothing_foreign_is_removed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = PlanCache(Path(folder))
        cache.put(KEY, b"plan", HEADER)
        path = cache.path(KEY)

        def check(data: bytes) -> None:
            path.write_bytes(data)
            if data == GOOD:
                assert cache.get(KEY) == (HEADER, b"plan")
                return
            with pytest.raises(CacheError):
                read_plan(path)
            assert cache.get(KEY) is None
            assert path.exists() == (not data.startswith(FAMILY))

        fuzz(check, damaged_files(), examples=300)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_HEADERS = st.one_of(
    _JSON.map(lambda value: json.dumps(value).encode()),
    st.tuples(st.sampled_from(sorted(asdict(HEADER))), _JSON).map(
        lambda change: json.dumps({**asdict(HEADER), change[0]: change[1]}).encode()
    ),
    st.binary(max_size=80),
    st.integers(1, 200_000).map(lambda depth: b"[" * depth),
    st.integers(1, 10_000).map(lambda digits: b"1" * digits),
)


def test_fuzz_a_header_with_right_digests_is_one_or_a_cache_error() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME

        def check(described: bytes) -> None:
            path.write_bytes(sealed(described, b"plan"))
            try:
                header = read_plan(path).header
            except CacheError:
                return
            again = json.loads(described)
            assert asdict(header) == {**again, "kept_fp32": tuple(again["kept_fp32"])}

        fuzz(check, _HEADERS, examples=200)
