"""A file that serves alone has engines for one GPU and version; others are built if asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact_models import case

import fxtrt
from fxtrt.artifact.archive import ArtifactFile, write_artifact
from fxtrt.artifact.verify import verify
from fxtrt.cache.store import entries
from fxtrt.engines.base import EngineBackend
from fxtrt.errors import ArtifactError

pytestmark = pytest.mark.usefixtures("no_grad", "rtx")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("plans")
    options: dict[str, Any] = {"engine": "tensorrt_rtx", "optimization_level": 0}
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    fast = fxtrt.compile(case("static"), (x,), cache_dir=folder / "cache", **options)
    fxtrt.save(fast, folder / "model.fxtrt", weights=True)
    return folder / "model.fxtrt"


@pytest.fixture
def path(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FXTRT_CACHE_DIR", str(tmp_path / "cache"))
    return Path(shutil.copy(first, tmp_path))


def built(loaded: Any) -> list[bool]:
    """Whether each engine came from a file, and was not built."""
    return [row.build.cached for row in fxtrt.report(loaded).clusters if row.build is not None]


def test_the_plans_of_the_file_are_used(path: Path, tmp_path: Path) -> None:
    assert built(fxtrt.load(path)) == [True]
    assert entries(tmp_path / "cache") == []
    assert verify(path).agrees


@pytest.mark.parametrize("other", ["GPU", "code"])
def test_plans_of_another_machine_are_built_again_if_asked(
    other: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if other == "GPU":
        edit(path, lambda manifest: manifest["engine"].update({"runs on": "another GPU"}))
    else:
        edit(path, lambda m: m["model"]["versions"].update({"fxtrt's code": "another"}))
    with pytest.raises(ArtifactError, match=r"has engines .* with rebuild=True"):
        fxtrt.load(path)
    assert built(fxtrt.load(path, rebuild=True)) == [False]
    assert verify(path, rebuild=True).agrees
    assert fxtrt.report(fxtrt.load(path, engine="reference")).clusters


def test_a_damaged_plan_is_refused_or_built_again(path: Path) -> None:
    data = path.read_bytes()
    with ArtifactFile(path) as file:
        (name,) = (one for one in file.manifest["plans"] if one.startswith("plans/"))
        place = data.index(file.read(name)) + 100
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ArtifactError, match=r"is damaged.*rebuild=True"):
        fxtrt.load(path)
    assert built(fxtrt.load(path, rebuild=True)) == [False]


def edit(path: Path, change: Any) -> None:
    """Change the manifest of a file, and keep all else."""
    with ArtifactFile(path) as file:
        manifest = file.manifest
        contents = [(name, file.read(name)) for name in file._digests]
    change(manifest)
    write_artifact(path, manifest, contents)


def test_the_backend_of_this_machine_has_plans(rtx: EngineBackend) -> None:
    assert rtx.plans
