"""Writes a Triton model repository around a file that serves alone, for the Python backend."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ..artifact.alone import golden_of
from ..artifact.archive import ArtifactFile
from ..artifact.manifest import Manifest
from ..errors import ServingError, SettingsError
from ..serialization.typed_json import typed
from .detections import outputs_of
from .protocol import DATATYPES
from .serve_options import ServeOptions
from .triton_model import FILE, IMAGE, PARAMETER, as_array

__all__ = ["export_triton"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_OURS = ("path", "name", "max_batch", "max_delay", "queue_size", "timeout", "show_images")
"""The options that Triton's own configuration has, or that a server of fxtrt alone has."""
_MODEL = '''"""Serves model.fxtrt, which lies beside this file."""

from fxtrt.serving.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_ROWS = 8


def export_triton(options: ServeOptions, folder: Path) -> Path:
    """Write a model repository, or one more model into it.

    Args:
        options: `path` is the file; `name` the model's name; `max_batch` and `max_delay` are those
            of Triton's dynamic batcher; all of the others but `queue_size`, `timeout` and
            `show_images` are for the process that loads the file.
        folder: of the repository.

    Returns:
        The folder of the model.

    Raises:
        ArtifactError: the file is damaged, or does not serve alone.
        SettingsError: the name is none for Triton.
        ServingError: the folder has such a model already.
        OSError: a file cannot be read or written.
    """
    name = options.model_name
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name for a model in Triton: give another with name")
    home = folder / name
    if home.exists():
        raise ServingError(f"{home} is there already: remove it, or give another name")
    with ArtifactFile(Path(options.path)) as file:
        manifest = typed(file.manifest, Manifest, f"the manifest of {options.path}")
        _, answer = golden_of(file, manifest)
    is_core = any(part["core"] for part in manifest["parts"])
    answer = answer[0] if is_core else pytree.tree_map_only(Tensor, lambda x: x[0], answer)
    most = options.max_batch or (manifest["settings"]["most_images"] if is_core else _ROWS)
    text = "\n".join(_config(options, most, outputs_of(answer), varies=is_core)) + "\n"
    version = home / "1"
    version.mkdir(parents=True)
    shutil.copyfile(options.path, version / FILE)
    (version / "model.py").write_text(_MODEL, encoding="utf-8")
    (home / "config.pbtxt").write_text(text, encoding="utf-8")
    return home


def _config(
    options: ServeOptions, most: int, outputs: Mapping[str, Any], *, varies: bool
) -> Iterator[str]:
    """Yield the lines of config.pbtxt.

    Args:
        outputs: of one image.
        varies: whether their sizes depend on the image.
    """
    given = {
        name: value
        for name, value in asdict(options).items()
        if name not in _OURS and value is not None
    }
    yield f"name: {_quoted(options.model_name)}"
    yield 'backend: "python"'
    yield f"max_batch_size: {most}"
    yield f"input [ {{ name: {_quoted(IMAGE)} data_type: TYPE_UINT8 dims: [ 3, -1, -1 ] }} ]"
    for name, value in outputs.items():
        kind, sizes = _described(value, varies=varies)
        yield f"output [ {{ name: {_quoted(name)} data_type: {kind} dims: {sizes} }} ]"
    delay = round(1e6 * (options.max_delay or 0.0))
    yield f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}"
    yield "instance_group [ { kind: KIND_AUTO count: 1 } ]"
    value = _quoted(json.dumps(given))
    yield f"parameters {{ key: {_quoted(PARAMETER)} value {{ string_value: {value} }} }}"


def _described(value: Any, *, varies: bool) -> tuple[str, list[int]]:
    """Return the type and the sizes of an output, without the batch dimension."""
    if not isinstance(value, Tensor):
        return "TYPE_STRING", [1]
    sizes = list(as_array(value).shape[1:])
    name = DATATYPES[value.dtype].replace("BF16", "FP32")
    return f"TYPE_{name}", [-1] * len(sizes) if varies else sizes


def _quoted(text: str) -> str:
    """Return a string of protobuf's text format, whose escapes JSON's are for ASCII."""
    return json.dumps(text)
