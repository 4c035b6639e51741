"""Keeps what tuning chose beside a file, for the machine and versions that it was measured on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from ..artifact.archive import ArtifactFile
from ..artifact.manifest import Manifest, settings_of
from ..engines.target import Target
from ..errors import ArtifactError, SettingsError
from ..files.atomic_file import written_at_once
from ..serialization.model_identity import CODE, versions_now
from ..serialization.typed_json import parse, typed
from ..settings import Options
from .tuner import Candidate, Tuned

__all__ = ["tuned_path", "tuned_settings", "write_tuned"]

_FORMAT = 1
_VERSIONS = ("torch", "fxtrt", CODE)
_MOST_BYTES = 1 << 20
_MOST_SLOTS, _MOST_BATCH, _MOST_DELAY = 1024, 4096, 60.0


class _Where(TypedDict):
    """What a measurement holds for: another value of any of these makes it void."""

    file: str
    device: str
    engine: str
    versions: dict[str, str]


class _Row(TypedDict):
    candidate: Candidate
    rate: float
    p50: float | None
    p99: float | None
    note: str


class _Content(TypedDict):
    """What the file has, besides the digest of all this.

    p99: the bound in seconds that `settings` were chosen for.
    """

    format: int
    where: _Where
    p99: float
    settings: Candidate
    rate: float
    trials: list[_Row]


@dataclass(frozen=True, slots=True)
class _Names:
    """How `_Where` is told to people."""

    file: str = "another content of the file"
    device: str = "another device"
    engine: str = "another engine"
    versions: str = "other versions"


def tuned_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of the tuned settings beside a file: model.tuned.json of model.fxtrt."""
    return Path(path).with_suffix(".tuned.json")


def write_tuned(path: str | os.PathLike[str], tuned: Tuned, options: Options | None = None) -> Path:
    """Write what tuning chose beside the file `path`, in one step, and return where.

    Args:
        options: the overrides of settings with which the file was loaded, such as `engine`.

    Raises:
        SettingsError: nothing was within the bound.
        OSError: it cannot be written; an older one is left as it was.
    """
    chosen = tuned.chosen
    rows = [
        {
            "candidate": asdict(trial.candidate),
            "rate": trial.rate,
            "p50": trial.p50 if math.isfinite(trial.p50) else None,
            "p99": trial.p99 if math.isfinite(trial.p99) else None,
            "note": trial.note,
        }
        for trial in tuned.trials
    ]
    content = {
        "format": _FORMAT,
        "where": _where(path, {} if options is None else options),
        "p99": tuned.p99,
        "settings": asdict(chosen.candidate),
        "rate": chosen.rate,
        "trials": rows,
    }
    target = tuned_path(path)
    text = json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n"
    with written_at_once(target) as file:
        file.write(text.encode())
    return target


def tuned_settings(
    path: str | os.PathLike[str], options: Options | None = None
) -> Mapping[str, Any] | str:
    """Return what `fxtrt tune` chose for the file `path` here, or why there is nothing to use.

    Args:
        options: the overrides of settings with which the file will be loaded, such as `engine`.

    Returns:
        "slots" and "cuda_graphs", for `fxtrt.load`, and "max_batch" and "max_delay", for `Server`;
        or a sentence for people.

    Raises:
        ArtifactError: the file `path` itself is damaged.
        OSError: the file `path` itself cannot be read.
    """
    target = tuned_path(path)
    advice = f"fxtrt tune {path} measures it here"
    try:
        with target.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return f"there is no {target}: {advice}"
    except OSError as error:
        return f"{target} is ignored, because it cannot be read ({error.strerror}): {advice}"
    try:
        content = _checked(data, str(target))
    except ArtifactError as error:
        return f"{target} is ignored, because it is damaged ({error}): {advice}"
    here = _where(path, {} if options is None else options)
    for name, told in asdict(_Names()).items():
        if content["where"][name] != here[name]:  # type: ignore[literal-required]  # its own names
            measured = content["where"][name]  # type: ignore[literal-required]  # its own names
            of = "" if name == "file" else f" ({_short(measured)})"
            return f"{target} is ignored, because it was measured with {told}{of}: {advice}"
    return asdict(content["settings"])


def _checked(data: bytes, what: str) -> _Content:
    """Return the content of a file with tuned settings.

    Raises:
        ArtifactError: it is damaged, was edited, or is of another form.
    """
    if len(data) > _MOST_BYTES:
        raise ArtifactError(f"it has more than {_MOST_BYTES} bytes")
    found = parse(data, what)
    if not isinstance(found, dict):
        raise ArtifactError("it is no JSON object")
    digest = found.pop("sha256", None)
    if found.get("format") != _FORMAT:
        raise ArtifactError(f"its format is {found.get('format')!r:.20}, not {_FORMAT}")
    if digest != _digest(found):
        raise ArtifactError("its digest is another one")
    try:
        content = typed(found, _Content, what)
    except SettingsError as error:
        raise ArtifactError(str(error)) from error
    chosen = content["settings"]
    if not (
        1 <= chosen.slots <= _MOST_SLOTS
        and 1 <= chosen.max_batch <= _MOST_BATCH
        and 0.0 <= chosen.max_delay <= _MOST_DELAY
    ):
        raise ArtifactError(f"it has settings that make no sense: {chosen}")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _where(path: str | os.PathLike[str], options: Options) -> _Where:
    with ArtifactFile(Path(path)) as file:
        manifest = typed(file.manifest, Manifest, f"the manifest of {path}")
        identity = _digest(file.manifest)
    backend = Target.of(settings_of(manifest, options)).backend
    cuda = torch.cuda.is_available()
    return {
        "file": identity,
        "device": torch.cuda.get_device_name() if cuda else f"a CPU with {os.cpu_count()} cores",
        "engine": f"{backend.name}: {backend.fingerprint}",
        "versions": versions_now(_VERSIONS),
    }


def _short(value: Any) -> str:
    """Return a value of `_Where` for people; a digest of sources tells them nothing."""
    if isinstance(value, dict):
        value = ", ".join(f"{name} {text}" for name, text in value.items() if name != CODE)
    return str(value)[:200]
