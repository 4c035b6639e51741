"""Fetches a wheel from the package index, and unpacks what tests need of it into the user's cache.

Nothing of the package is part of this repository: pip fetches its wheel once, and checks its hash.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

__all__ = ["cache_folder", "unpacked_wheel"]

_SECONDS = 120


def cache_folder() -> Path:
    """Return the folder in the user's cache that the tests of all checkouts share."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fxtrt-tests"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def unpacked_wheel(
    name: str,
    requirement: str,
    sha256: str,
    needed: Callable[[str], bool],
    platform: Sequence[str] = (),
) -> Path:
    """Return the folder that holds the package, or skip the test that asks for it.

    Args:
        name: of the folder.
        requirement: with an exact version. Its dependencies are not fetched.
        needed: tells of each file in the wheel whether to unpack it.
        platform: pip's options of the platform, where the wheel is not for this one.
    """
    cache = cache_folder()
    folder = cache / f"{name}-{sha256[:16]}"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        unpacked = Path(temporary, "unpacked")
        with zipfile.ZipFile(_downloaded(requirement, sha256, platform, temporary)) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if needed(name)])
        if not folder.exists():
            unpacked.rename(folder)
    return folder


def _downloaded(requirement: str, sha256: str, platform: Sequence[str], folder: str) -> Path:
    requirements = Path(folder, "requirements.txt")
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *platform]
    command += ["--only-binary=:all:", "--require-hashes", f"--dest={folder}"]
    try:
        subprocess.run(
            [*command, f"--requirement={requirements}"],
            check=True,
            capture_output=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error).encode()
        pytest.skip(f"pip could not fetch {requirement}: {reason.decode()[-300:]}")
    (wheel,) = Path(folder).glob("*.whl")
    return wheel
