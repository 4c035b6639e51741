"""A file that is written at once is complete or absent, and as `open` would have made it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fxtrt.files.atomic_file import written_at_once


@pytest.fixture
def umask() -> Iterator[None]:
    """One that is unlike the usual one."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def write(path: Path, data: bytes = b"new", mode: int | None = None) -> None:
    with written_at_once(path, mode) as file:
        file.write(data)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    write(tmp_path / "file")
    assert mode_of(tmp_path / "file") == 0o640
    write(tmp_path / "plan", mode=0o604)
    assert mode_of(tmp_path / "plan") == 0o600


@pytest.mark.usefixtures("umask")
def test_a_file_that_is_replaced_keeps_its_mode_unless_another_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o606)
    write(path)
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o606)
    write(path, mode=0o644)
    assert mode_of(path) == 0o640


@pytest.mark.parametrize("exists", [False, True])
def test_a_link_is_followed(exists: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to(Path("folder") / "target")
    if exists:
        target.write_bytes(b"old")
    write(link)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write(tmp_path / "loop")
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_only_a_regular_file_is_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    before = path.lstat().st_mode
    with pytest.raises(OSError, match="it"):
        write(path)
    assert path.lstat().st_mode == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with written_at_once(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_synced_before_it_moves_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        events.append("move")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(tmp_path / "file")
    assert events == ["file", "move", "folder"]
