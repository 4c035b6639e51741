"""Turns named contents into one file that is complete or absent, and back, every byte checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .atomic_file import written_at_once
from .errors import ArtifactError

__all__ = ["ArtifactFile", "write_artifact"]

_MAGIC = b"fxtrt artifact 1 "
"""Begins the comment of the ZIP file; the SHA-256 of the manifest follows."""
_MANIFEST = "manifest.json"
_CACHED = re.compile(r"(plan|timing)s/[0-9a-f]{64}\.\1")
"""The files of a plan cache, which have digests of their own."""
_DATE = (1980, 1, 1, 0, 0, 0)


def write_artifact(
    path: Path,
    manifest: Mapping[str, Any],
    contents: Mapping[str, bytes],
    cached: Mapping[str, Path],
) -> None:
    """Write a file beside `path` and move it there in one step. The same contents give the same
    bytes.

    Args:
        manifest: JSON; the digests of `contents` are added.
        cached: files of a plan cache, by their names in it.

    Raises:
        OSError: the disk is full or read-only; nothing is left behind.
    """
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    described = json.dumps({**manifest, "contents": digests, "cached": sorted(cached)}).encode()
    with written_at_once(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.comment = _MAGIC + hashlib.sha256(described).hexdigest().encode()
        for name, data in {_MANIFEST: described, **contents}.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
        for name, source in sorted(cached.items()):
            archive.writestr(zipfile.ZipInfo(name, _DATE), source.read_bytes())


class ArtifactFile:
    """An open artifact.

    manifest: as it was given to `write_artifact`.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ArtifactError: the file is damaged, or none of this version of fxtrt.
            OSError: it cannot be read.
        """
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ArtifactError(f"{path} is cut short, or no artifact") from error
        with contextlib.ExitStack() as stack:
            stack.callback(self._archive.close)
            if not self._archive.comment.startswith(_MAGIC):
                raise ArtifactError(f"{path} is no artifact of this version of fxtrt")
            digest = self._archive.comment.removeprefix(_MAGIC).decode("ascii", "replace")
            self.manifest: dict[str, Any] = json.loads(self._read(_MANIFEST, digest))
            stack.pop_all()

    def __enter__(self) -> ArtifactFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()

    def read(self, name: str) -> bytes:
        """What `contents` had under that name.

        Raises:
            ArtifactError: it is damaged or missing.
        """
        return self._read(name, self.manifest["contents"].get(name))

    def unpack_cache(self, directory: Path) -> None:
        """Make a plan cache of the plans and timings, whose reader checks them.

        Raises:
            ArtifactError: it is damaged.
        """
        for name in self.manifest["cached"]:
            if not _CACHED.fullmatch(name):
                raise ArtifactError(f"{self._path} has a plan of the name {name!r}")
            (directory / name).parent.mkdir(exist_ok=True)
            with (
                self._reading(name),
                self._archive.open(name) as source,
                (directory / name).open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 1 << 20)

    def _read(self, name: str, digest: str | None) -> bytes:
        with self._reading(name):
            data = self._archive.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"{self._path} is damaged: {name} is not what was saved")
        return data

    @contextlib.contextmanager
    def _reading(self, name: str) -> Any:
        try:
            yield
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
            raise ArtifactError(f"{self._path} is damaged at {name}: {error}") from error
