"""What serves alone is checked when it is read: weights, host steps and golden inputs of a file
that somebody made on purpose."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from artifact_edits import Edited, rewrite
from artifact_models import detector
from small_detectron2 import small_detector

import fxtrt
from fxtrt.artifact.verify import verify
from fxtrt.cli.main import main
from fxtrt.errors import ArtifactError, CallError

pytest.importorskip("torchvision", reason="torchvision is not installed")

pytestmark = pytest.mark.usefixtures("no_grad")

Edit = Callable[[Any, Edited], Any]
WEIGHTS, GOLDEN = "weights.safetensors", "golden.constants"
NAME = "roi_heads.box_predictor.cls_score.weight"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, inputs = detector()
    path: Path = tmp_path_factory.mktemp("alone") / "model.fxtrt"
    fxtrt.save(fxtrt.compile(model, inputs, engine="reference"), path, weights=True)
    return path


@pytest.fixture
def path(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(first, tmp_path))


def change(path: Path, edit: Edit) -> None:
    rewrite(path, lambda edited: edit(edited.manifest["alone"], edited))


def rename(to: str) -> Edit:
    return lambda alone, edited: alone["weights"].update({to: alone["weights"].pop(NAME)})


def form(position: int, value: Any) -> Edit:
    return lambda alone, edited: alone["weights"][NAME][2].__setitem__(position, value)


def replaced(make: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    """Another tensor in the safetensors file, with a row that fits it."""

    def edit(alone: Any, edited: Edited) -> None:
        tensors = safetensors.torch.load(edited.members[WEIGHTS])
        key = alone["weights"][NAME][0]
        tensors[key] = make(tensors[key])
        edited.members[WEIGHTS] = safetensors.torch.save(tensors)
        dtype = str(tensors[key].dtype).removeprefix("torch.")
        sizes = [list(tensors[key].shape), list(tensors[key].stride())]
        alone["weights"][NAME][2] = [dtype, *sizes, "cpu"]

    return edit


def header(text: bytes) -> Edit:
    data = struct.pack("<Q", len(text)) + text
    return lambda alone, edited: edited.members.update({WEIGHTS: data})


FORGED_WEIGHTS: dict[str, Edit] = {
    "missing": lambda alone, edited: alone["weights"].pop(NAME),
    "of another key": lambda alone, edited: alone["weights"][NAME].__setitem__(0, "other"),
    "no safetensors": lambda alone, edited: edited.members.update({WEIGHTS: b"x" * 100}),
    "cut": lambda alone, edited: edited.members.update({WEIGHTS: edited.members[WEIGHTS][:-4]}),
    "a huge header": lambda alone, edited: edited.members.update({WEIGHTS: b"\xff" * 8}),
    "beyond the end": header(b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'),
    "of no dtype": header(b'{"a": {"dtype": "X9", "shape": [0], "data_offsets": [0, 0]}}'),
    "of another dtype": replaced(lambda x: x.double()),
    "of another shape": replaced(lambda x: x[:1].contiguous()),
    "of another rank": replaced(lambda x: x[None]),
    "a row of another dtype": form(0, "float64"),
    "a row of another shape": form(1, [1]),
    "negative strides": form(2, [-1, 1]),
    "huge strides": form(2, [1 << 40, 1]),
    "nowhere": form(3, "nowhere"),
    "a GPU that is not there": form(3, "cuda:77"),
    "a dunder": rename("__class__"),
    "a dunder below": rename("roi_heads.__dict__"),
    "a method": rename("forward"),
    "a method below": rename("roi_heads.forward"),
    "within a weight": rename("roi_heads.box_predictor.cls_score.bias.more"),
    "no name": rename(""),
    "a dot": rename("roi_heads..weight"),
    "a path": rename("../weight"),
    "a long name": rename(".".join(["a"] * 5000)),
}


@pytest.mark.parametrize("edit", FORGED_WEIGHTS.values(), ids=FORGED_WEIGHTS)
def test_weights_fit_the_graph(edit: Edit, path: Path) -> None:
    change(path, edit)
    with pytest.raises(ArtifactError):
        fxtrt.load(path)


def steps(**values: Any) -> Edit:
    return lambda alone, edited: alone["steps"].update(values)


def rules(**values: Any) -> Edit:
    return lambda alone, edited: alone["steps"]["rules"].update(values)


FORGED_STEPS: dict[str, Edit] = {
    "none": lambda alone, edited: alone.update(steps=None),
    "of no library": steps(library="os.system"),
    "of more": steps(code="print('ran')"),
    "names": steps(names=["boxes", "labels", "scores", "__class__"]),
    "too many names": steps(names=["boxes", "labels", "scores", "masks"]),
    "names twice": steps(names=["boxes", "labels", "scores", "scores"]),
    "no scores": steps(names=["boxes", "labels", "masks"]),
    "a huge image": rules(min_size=1 << 40),
    "a negative image": rules(min_size=-1),
    "no image": rules(max_size=0),
    "a huge padding": rules(size_divisible=1 << 30),
    "no padding": rules(size_divisible=0),
    "a fixed size": rules(fixed_size=[1 << 20, 1 << 20]),
    "a fixed size of three": rules(fixed_size=[8, 8, 8]),
    "a deviation of zero": rules(std=[0.0, 1.0, 1.0]),
    "a mean that is no number": rules(mean=[math.nan, 0.0, 0.0]),
    "an infinite deviation": rules(std=[math.inf, 1.0, 1.0]),
    "many channels": rules(mean=[0.0] * 1000, std=[1.0] * 1000),
    "a text": rules(min_size="800"),
    "a size with a fraction": rules(min_size=800.5),
}


@pytest.mark.parametrize("edit", FORGED_STEPS.values(), ids=FORGED_STEPS)
def test_host_steps_are_those_of_a_detector(edit: Edit, path: Path) -> None:
    change(path, edit)
    with pytest.raises(ArtifactError):
        fxtrt.load(path)


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_host_steps_are_those_of_a_model_of_detectron2(tmp_path: Path) -> None:
    from small_detectron2 import picture

    fast = fxtrt.compile(
        small_detector("Faster R-CNN"), ([{"image": picture(192, 224)}],), engine="reference"
    )
    first = tmp_path / "first.fxtrt"
    fxtrt.save(fast, first, weights=True)
    assert verify(first).agrees
    limits: Any = {"overlap": 0.5}
    for edit in (
        steps(size_divisibility=0),
        steps(size_divisibility=1 << 30),
        steps(square_size=-5),
        steps(std=[0.0, 1.0, 1.0]),
        steps(mean=[0.0]),
        lambda alone, edited: alone["steps"]["results"].update(kind="semantic"),
        lambda alone, edited: alone["steps"]["results"].update(kind="panoptic"),
        lambda alone, edited: alone["steps"]["results"].update(kind="eval"),
        lambda alone, edited: alone["steps"]["results"].update(masks=True),
        lambda alone, edited: alone["steps"]["results"].update(combine=limits),
        lambda alone, edited: alone["steps"]["results"].update(combine=[0.5, math.nan, 0.5]),
    ):
        path = Path(shutil.copy(first, tmp_path / "model.fxtrt"))
        change(path, edit)
        with pytest.raises(ArtifactError):
            fxtrt.load(path)


def golden(**values: Any) -> Edit:
    return lambda alone, edited: alone["golden"].update(values)


LEAF: Any = {"type": None, "context": None, "children_spec": []}
FORGED_GOLDEN: dict[str, Edit] = {
    "no call": golden(takes=LEAF, inputs=[3]),
    "other leaves": golden(inputs=[]),
    "a tensor that is not there": golden(inputs=[{"tensor": 99}]),
    "a negative tensor": golden(inputs=[{"tensor": -1}]),
    "another kind": golden(inputs=[{"file": "treasure"}]),
    "cut": lambda alone, edited: edited.members.update({GOLDEN: edited.members[GOLDEN][:-1]}),
    "a huge form": lambda alone, edited: alone["golden"]["tensors"][0].__setitem__(1, [1 << 50]),
    "a type": golden(gives={"type": "os.system", "context": None, "children_spec": []}, outputs=[]),
}


@pytest.mark.parametrize("edit", FORGED_GOLDEN.values(), ids=FORGED_GOLDEN)
def test_golden_calls_are_data(edit: Edit, path: Path) -> None:
    change(path, edit)
    with pytest.raises(ArtifactError):
        verify(path)


def outputs(number: int, value: float) -> Edit:
    """One number of an output is another. Its tensors are boxes, labels and scores."""

    def edit(alone: Any, edited: Edited) -> None:
        forms, tensors, start = alone["golden"]["tensors"], [], 0
        data = bytearray(edited.members[GOLDEN])
        for dtype, shape, *_ in forms:
            tensors.append((start, dtype))
            start += math.prod(shape) * getattr(torch, dtype).itemsize
        place, dtype = tensors[1 + number]
        packed = struct.pack("<q", int(value)) if dtype == "int64" else struct.pack("<f", value)
        data[place : place + len(packed)] = packed
        edited.members[GOLDEN] = bytes(data)

    return edit


OTHER_ANSWERS: dict[str, Edit] = {
    "a box": outputs(0, 1e6),
    "a box that is no number": outputs(0, math.nan),
    "an infinite box": outputs(0, math.inf),
    "a label": outputs(1, 2000),
    "a score": outputs(2, 0.5),
    "a score that is no number": outputs(2, math.nan),
    "an infinite score": outputs(2, math.inf),
    "no answers": golden(
        gives={"type": "builtins.list", "context": "null", "children_spec": []}, outputs=[]
    ),
}


@pytest.mark.parametrize("edit", OTHER_ANSWERS.values(), ids=OTHER_ANSWERS)
def test_an_answer_that_differs_is_told(
    edit: Edit, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(path).agrees
    change(path, edit)
    assert not verify(path).agrees
    assert run(monkeypatch, "verify", str(path)) == 1
    assert "answers OTHERWISE" in capsys.readouterr().out


def test_weights_that_changed_show_in_the_answers(path: Path) -> None:
    change(path, replaced(lambda x: x.flip(0)))
    assert not verify(path).agrees


def test_verify_on_the_command_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "verify", str(path)) == 0
    out = capsys.readouterr().out
    assert "boxes" in out
    assert "answers as when it was saved" in out
    path.write_bytes(path.read_bytes()[:-100])
    assert run(monkeypatch, "verify", str(path)) == 2
    assert "cut short" in capsys.readouterr().err


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr("sys.argv", ["fxtrt", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code or 0


def test_a_file_that_does_not_take_its_own_call(path: Path) -> None:
    def edit(alone: Any, edited: Edited) -> None:
        alone["golden"]["inputs"] = ["image"]

    change(path, edit)
    with pytest.raises(CallError, match="an image is a str"):
        verify(path)


def test_the_report_is_in_the_file(path: Path) -> None:
    found = json.loads(Edited(path).members["report.json"])
    assert found == json.loads(fxtrt.report(fxtrt.load(path)).to_json()) | {
        key: found[key] for key in ("guards", "clusters", "runtime")
    }
