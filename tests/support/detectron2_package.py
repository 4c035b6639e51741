"""Makes Detectron2 importable for tests: the one on the path, or version 0.4 from a PyPI package.

Nothing of the package is part of this repository: pip fetches its wheel once, checks its hash, and
the Python files are unpacked into the user's cache.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import detectron2_kernels
import pytest

__all__ = ["require_detectron2"]

_REQUIREMENT = "geoai-detectron2==0.4"
_SHA256 = "6eb280a50dbc3536caa9dc73229dfbbe0bda4fea6692c17803584dda680fad8d"
_PLATFORM = ("--platform=win_amd64", "--python-version=37", "--implementation=cp", "--abi=cp37m")
"""The platform of the only wheel that there is; its compiled part is left out."""
_SECONDS = 120


@functools.cache
def require_detectron2() -> None:
    """Let `import detectron2` work, or skip the test that asks for it."""
    if importlib.util.find_spec("detectron2") is None:
        pytest.importorskip("fvcore", reason="fxtrt[detectron2-test] is not installed")
        sys.path.insert(0, str(_unpacked()))
        _fit_to_this_decade()
    if importlib.util.find_spec("detectron2._C") is None:
        _stand_in_for_c()
    _offer_pkg_resources()
    pytest.importorskip("detectron2.model_zoo", reason="detectron2 does not import")


def _unpacked() -> Path:
    """The folder that holds `detectron2`, in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fxtrt-tests"
    folder = cache / f"detectron2-{_SHA256[:16]}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        unpacked = Path(temporary, "unpacked")
        with zipfile.ZipFile(_downloaded(Path(temporary))) as wheel:
            names = [name for name in wheel.namelist() if not name.endswith(".pyd")]
            wheel.extractall(unpacked, names)
        if not folder.exists():
            unpacked.rename(folder)
    return folder


def _downloaded(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_REQUIREMENT} --hash=sha256:{_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *_PLATFORM]
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
        pytest.skip(f"pip could not fetch {_REQUIREMENT}: {reason.decode()[-300:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _fit_to_this_decade() -> None:
    """What version 0.4 of 2021 expects of its surroundings when it is imported."""
    import PIL.Image

    PIL.Image.LINEAR = PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]  # its old name


def _stand_in_for_c() -> None:
    """The compiled part as far as importing Detectron2, and the kernels of tests, need it.

    find_spec does not import Detectron2 itself, which needs this module.
    """
    compiled = types.ModuleType("detectron2._C")
    sys.modules[compiled.__name__] = compiled
    detectron2_kernels.define(compiled)


def _offer_pkg_resources() -> None:
    """Gone from setuptools 81 on; the model zoo looks up its configs with it."""
    if importlib.util.find_spec("pkg_resources") is None:
        resources = types.ModuleType("pkg_resources")
        resources.resource_filename = _resource_filename  # type: ignore[attr-defined]  # a stand-in
        resources.resource_exists = _resource_exists  # type: ignore[attr-defined]  # a stand-in
        # pytest calls this one wherever the module is loaded.
        resources.fixup_namespace_packages = lambda path: None  # type: ignore[attr-defined]  # also
        sys.modules["pkg_resources"] = resources


def _resource_filename(package: str, name: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / name)


def _resource_exists(package: str, name: str) -> bool:
    return Path(_resource_filename(package, name)).exists()
