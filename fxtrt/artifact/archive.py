"""Writes named contents to one file atomically, and reads them back with their digests checked."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ..errors import ArtifactError
from ..files.atomic_file import written_at_once
from ..serialization.typed_json import parse, typed

__all__ = ["ArtifactFile", "write_artifact"]

_NAME = b"fxtrt artifact "
_MAGIC = _NAME + b"4 "
"""The beginning of the ZIP file's comment, with the number of the format; the SHA-256 of the
manifest follows."""
_END = len(_MAGIC) + 64
_MANIFEST, _CONTENTS = "manifest.json", "contents"
_DATE = (1980, 1, 1, 0, 0, 0)
_MEMBER = struct.Struct("<4sHHHHHIIIHH")
"""The header of a member of a ZIP file: signature, version, flags, method, time, date, CRC,
compressed size, size, and the lengths of the name and of the extra field."""
_LARGE = struct.Struct("<HHQQ")
"""The extra field that `zipfile` adds from about 2 GiB on: kind, length, size, compressed size."""
_STARTS_MEMBER, _STARTS_DIRECTORY = b"PK\x03\x04", b"PK\x01\x02"
_MOST_NAME = 256
_MOST_MEMBERS = 100_000
_MOST_MANIFEST = 256 << 20


def write_artifact(
    path: Path, manifest: Mapping[str, Any], contents: Iterable[tuple[str, bytes]]
) -> None:
    """Write a file beside `path` and move it there in one step.

    The same contents result in the same bytes.

    Args:
        manifest: JSON values by name. It is written last, so iterating over `contents` may still
            add to it.
        contents: pairs of name and bytes; the manifest gets their digests.

    Raises:
        OSError: the disk is full or read-only; no file is left behind.
    """
    digests: dict[str, str] = {}
    with written_at_once(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in contents:
            digests[name] = hashlib.sha256(data).hexdigest()
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
        described = json.dumps({**manifest, _CONTENTS: digests}).encode()
        archive.writestr(zipfile.ZipInfo(_MANIFEST, _DATE), described)
        archive.comment = _MAGIC + hashlib.sha256(described).hexdigest().encode()


class ArtifactFile:
    """Reads an artifact. Nothing is compressed, so no content is larger than the file.

    manifest: the manifest that `write_artifact` was given.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and check its manifest.

        Raises:
            ArtifactError: the file is damaged, or no artifact of this version of fxtrt.
            OSError: the file cannot be read.
        """
        self._path = path
        # Opening a pipe would wait for a writer, and reading some devices would never end.
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise ArtifactError(f"{path} is no regular file")
        self._file = path.open("rb")
        try:
            digest = self._digest_of_manifest()
            self._members = _members(self._file, path)
            self.manifest: dict[str, Any] = self._manifest(digest)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ArtifactFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, name: str) -> bytes:
        """Return the content called `name`, after checking its digest.

        Raises:
            ArtifactError: the content is damaged or missing.
        """
        return self._read(name, self._digests.get(name))

    def _digest_of_manifest(self) -> str:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(size - _END, 0))
        comment = self._file.read()
        if not comment.startswith(_MAGIC):
            if comment.startswith(_NAME):
                raise ArtifactError(
                    f"{self._path} was saved by another version of fxtrt: compile the model again "
                    f"and save it"
                )
            raise ArtifactError(f"{self._path} is cut short, or no artifact of fxtrt")
        return comment.removeprefix(_MAGIC).decode("ascii", "replace")

    def _manifest(self, digest: str) -> dict[str, Any]:
        what = f"the manifest of {self._path}"
        if self._members.get(_MANIFEST, (0, 0))[1] > _MOST_MANIFEST:
            raise ArtifactError(f"{what} is too large")
        manifest = typed(parse(self._read(_MANIFEST, digest), what), dict[str, Any], what)
        self._digests = typed(manifest.pop(_CONTENTS, None), dict[str, str], what)
        if {_MANIFEST, *self._digests} != self._members.keys():
            raise ArtifactError(f"{what} names other members than there are")
        return manifest

    def _read(self, name: str, digest: str | None) -> bytes:
        start, size = self._members.get(name, (0, 0))
        self._file.seek(start)
        data = self._file.read(size)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"{self._path} is damaged: {name} is not what was saved")
        return data


def _members(file: BinaryIO, path: Path) -> dict[str, tuple[int, int]]:
    """Return the start and the size of each member.

    The members follow each other uncompressed, from the first byte of the file to its directory.
    The directory is not read; it is there for other programs.
    """
    members: dict[str, tuple[int, int]] = {}
    end = file.seek(0, os.SEEK_END)
    position = file.seek(0)
    while len(members) <= _MOST_MEMBERS:
        head = file.read(_MEMBER.size)
        if head.startswith(_STARTS_DIRECTORY):
            return members
        name, size, start = _member(head, file, position)
        position = start + size
        if name is None or name in members or position > end:
            break
        members[name] = start, size
        file.seek(position)
    raise ArtifactError(f"{path} is cut short or damaged at its byte {position}")


def _member(head: bytes, file: BinaryIO, position: int) -> tuple[str | None, int, int]:
    """Return the name, size and start of a member; the name is None if its header is not valid."""
    if len(head) < _MEMBER.size:
        return None, 0, position
    signature, _, flags, method, _, _, _, packed, size, length, extra = _MEMBER.unpack(head)
    is_plain = (signature, flags, method) == (_STARTS_MEMBER, 0, zipfile.ZIP_STORED)
    if not is_plain or packed != size or length > _MOST_NAME or extra not in (0, _LARGE.size):
        return None, 0, position
    name, large = file.read(length), file.read(extra)
    if len(large) == _LARGE.size:
        kind, _, size, packed = _LARGE.unpack(large)
        if kind != 1 or packed != size:
            return None, 0, position
    start = position + _MEMBER.size + length + extra
    return name.decode("ascii", "replace"), size, start
