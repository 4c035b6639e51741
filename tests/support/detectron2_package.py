"""Makes Detectron2 importable for tests: the one on the path, or 0.4 from a PyPI package."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from pathlib import Path

import detectron2_kernels
import pytest
from unpacked_wheel import unpacked_wheel

__all__ = ["require_detectron2"]

_REQUIREMENT = "geoai-detectron2==0.4"
_SHA256 = "6eb280a50dbc3536caa9dc73229dfbbe0bda4fea6692c17803584dda680fad8d"
_PLATFORM = ("--platform=win_amd64", "--python-version=37", "--implementation=cp", "--abi=cp37m")
"""The platform of the only wheel that there is; its compiled part is left out."""


@functools.cache
def require_detectron2() -> None:
    """Let `import detectron2` work, or skip the test that asks for it."""
    if importlib.util.find_spec("detectron2") is None:
        pytest.importorskip("fvcore", reason="fxtrt[detectron2-test] is not installed")
        folder = unpacked_wheel("detectron2", _REQUIREMENT, _SHA256, _is_python, _PLATFORM)
        sys.path.insert(0, str(folder))
        _fit_to_this_decade()
    if importlib.util.find_spec("detectron2._C") is None:
        _stand_in_for_c()
    _offer_pkg_resources()
    pytest.importorskip("detectron2.model_zoo", reason="detectron2 does not import")


def _is_python(name: str) -> bool:
    return not name.endswith(".pyd")


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
