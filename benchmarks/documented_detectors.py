"""List the examples of the documents that compile a detector, and run them with real detectors.

The code is that of the documents: an example names a file and a line in each of its blocks, and
supplies what stands before the blocks, such as `detector` and `images`.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from detector_cases import Built, Case
from torch import nn
from torch.export import Dim

import fxtrt

__all__ = ["EXAMPLES", "OTHERS", "Example", "blocks", "find_block", "run_example"]

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ALL = (
    *("faster", "c4", "mask", "keypoint", "cascade", "panoptic", "retinanet"),
    *("tv-faster", "tv-mask", "tv-retinanet"),
)
"""The ten families that the first example of the README runs with."""

Names = Callable[[Case, Built], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Example:
    """Blocks of one document that compile a detector; they leave it in `fast`.

    lines:       for each block, in order, a text that only it has.
    families:    the keys of the detectors to run it with.
    names:       returns what the blocks find defined.
    other_sizes: whether the document promises that images of other sizes run in engines too.
    """

    key: str
    document: str
    lines: tuple[str, ...]
    families: tuple[str, ...]
    names: Names
    other_sizes: bool = True


def _images(case: Case, built: Built) -> dict[str, Any]:
    one = built.batch(1)
    return {"detector": built.model, "model": built.model, "images": one}


def _served(case: Case, built: Built) -> dict[str, Any]:
    return {"model": built.model, "image": built.batch(1), "answers": []}


def _one_image(case: Case, built: Built) -> dict[str, Any]:
    return {"detector": built.model, "image": built.batch(1)[0], "Dim": Dim}


def _config(case: Case, built: Built) -> dict[str, Any]:
    """Return a config with a checkpoint of the calibrated weights, in the current folder."""
    from detector_families import FAMILIES
    from detectron2 import model_zoo

    (family,) = [one for one in FAMILIES if one.name == case.name]
    cfg = model_zoo.get_config(family.config)
    cfg.MODEL.WEIGHTS = str(Path("calibrated.pth").resolve())
    cfg.MODEL.DEVICE = next(built.model.parameters()).device.type
    torch.save({"model": built.model.state_dict()}, cfg.MODEL.WEIGHTS)
    return {"cfg": cfg}


_DEPLOY, _SIZES = "docs/how-to/deploy.md", "docs/how-to/dynamic-sizes.md"
_TUTORIAL = "docs/tutorials/detectron2-model.md"
EXAMPLES: Sequence[Example] = (
    Example(
        *("readme", "README.md", ("fxtrt.compile(detector.eval(), (images,))",), _ALL, _images)
    ),
    Example(
        "just-in-time",
        "README.md",
        ("torch.compile(detector.eval(), backend",),
        ("faster",),
        _images,
        other_sizes=False,
    ),
    Example(*("detectron2", _TUTORIAL, ("fxtrt.compile(model, (inputs,))",), ("faster",), _config)),
    Example(
        "deploy",
        _DEPLOY,
        ('fxtrt.load("detector.fxtrt", model, slots=8)', "worker([image, image])"),
        ("mask", "tv-faster"),
        _served,
    ),
    Example("sizes", _SIZES, ("dynamic_shapes=([sides],)",), ("tv-faster",), _one_image),
    Example(
        "more-inputs",
        _SIZES,
        ("more_inputs=[(two,)]",),
        ("tv-retinanet",),
        _one_image,
        other_sizes=False,
    ),
)
OTHERS: Mapping[str, Sequence[str]] = {
    "README.md": ('fxtrt.compile(model, (image,), precision="fp16")',),
    "docs/design/partitioner.md": ('"roi_heads.mask_head"',),
    "docs/tutorials/first-model.md": ('engine": "reference', 'engine="reference"'),
    _TUTORIAL: ("predictor.model = fxtrt.compile", "GeneralizedRCNNWithTTA(cfg, model)"),
    "docs/tutorials/own-converter.md": ('engine="reference"',),
    "docs/reference/settings.md": ("settings=settings",),
    "docs/reference/report.md": ('torch.compile(model, backend="fxtrt")',),
    "docs/how-to/other-models.md": ("fxtrt.compile(model", "MTCNN("),
    "docs/how-to/find-a-wrong-answer.md": ("fuel=0", 'engine="reference"'),
    "docs/how-to/half-precision.md": ('engine="reference"',),
    "docs/how-to/accuracy-gate.md": ('engine="reference"',),
    "docs/how-to/int8.md": ('engine="reference"', '"engine": "reference"'),
    _DEPLOY: ("alone.fxtrt",),
    "docs/how-to/serve.md": ("tuned_settings",),
    "docs/how-to/own-architecture.md": ("SpotDetector().eval()",),
    _SIZES: ("dynamic_shapes=(varies,)", 'torch.compile(model, backend="fxtrt")'),
}
"""Texts of the blocks that compile no detector, a part of one, or what needs a data set."""


def blocks(document: str) -> list[str]:
    """Return the Python blocks of a document that its readers see."""
    text = (ROOT / document).read_text()
    return [textwrap.dedent(code) for code in _BLOCK.findall(text)]


def find_block(document: str, line: str) -> str:
    """Return the only block of a document with `line` in it.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = [code for code in blocks(document) if line in code]
    if len(found) != 1:
        raise ValueError(f"{document} has {len(found)} blocks with {line!r}, not one")
    return found[0]


def run_example(
    example: Example, case: Case, built: Built, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Run the blocks of an example in a folder of their own, and return their names.

    Args:
        options: of the machine, such as TensorRT's tactic sources; the blocks' own take precedence.
    """
    with _apart(), _with_options(options):
        names = {"fxtrt": fxtrt, "torch": torch, **example.names(case, built)}
        for line in example.lines:
            code = find_block(example.document, line)
            exec(compile(code, f"{example.document}: {line}", "exec"), names)
    return names


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _with_options(options: Mapping[str, Any]) -> Iterator[None]:
    """Let `fxtrt.compile` and `torch.compile` use these options where a call does not give them."""
    ahead_of_time, just_in_time = fxtrt.compile, torch.compile

    def compile_ahead(*args: Any, **given: Any) -> nn.Module:
        return ahead_of_time(*args, **{**options, **given})

    def compile_jit(*args: Any, **given: Any) -> Any:
        if given.get("backend") == "fxtrt":
            given["options"] = {**options, **given.get("options", {})}
        return just_in_time(*args, **given)

    with (
        patch.object(fxtrt, "compile", compile_ahead),
        patch.object(torch, "compile", compile_jit),
    ):
        yield
