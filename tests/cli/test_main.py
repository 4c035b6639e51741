"""The command line: what it prints, how it ends, and what it says to bad input."""

from __future__ import annotations

import copy
import errno
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from graphs import replace_converter
from PIL import Image
from report_rows import CLUSTER, REJECTED

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from small_torchvision import small_rcnn
from torchvision.models.detection import FasterRCNN

import fxtrt
from fxtrt.diagnostics.example_models import Example, load_example

FORMS = ("json", "html", "markdown")


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    """Dynamo shares compiled code between models of one type, as a new process would not."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_report_prints_coverage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "report", "--model", "resnet18", "--engine", "reference") == 0
    printed = capsys.readouterr().out
    assert "1 engine: 100.0% of the FLOPs" in printed
    assert "not built" in printed


def test_report_writes_its_forms_and_compares_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a.json", "a.html", "a.md", "b.json")]
    written = [f"--{form}={file}" for form, file in zip(FORMS, files, strict=False)]
    base = ["report", "--model", "resnet18", "--engine", "reference"]
    assert run(monkeypatch, *base, *written) == 0
    assert "<svg" not in files[1].read_text(encoding="utf-8")
    assert "layer1" in files[1].read_text(encoding="utf-8")
    assert files[2].read_text(encoding="utf-8").startswith("**1 engine: 100.0%")
    coverage = fxtrt.Coverage.from_json(files[0].read_text(encoding="utf-8"))
    without = replace(coverage, clusters=(), pictures=())
    files[3].write_text(without.to_json(), encoding="utf-8")
    capsys.readouterr()
    assert run(monkeypatch, "report", "--diff", str(files[0]), str(files[3])) == 0
    assert "clusters                  1         0" in capsys.readouterr().out
    assert run(monkeypatch, "report", "--diff", str(files[0]), str(files[2])) == 2
    assert "not a report that fxtrt wrote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bars", "messages"),
    [
        (["--min-flops", "1", "--max-clusters", "1"], []),
        (["--max-clusters", "0"], ["fxtrt: 1 clusters, --max-clusters allows 0"]),
        (
            ["--min-flops", "0.95", "--max-clusters", "0"],
            [
                "fxtrt: 75.00% of the FLOPs run in engines, --min-flops asks for 95.00%",
                "fxtrt: 1 clusters, --max-clusters allows 0",
            ],
        ),
    ],
)
def test_report_fails_below_the_bar(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bars: list[str],
    messages: list[str],
) -> None:
    inside = fxtrt.Coverage((CLUSTER,))
    outside = replace(inside, rejections=(REJECTED,))
    found = outside if len(messages) == 2 else inside
    monkeypatch.setattr("fxtrt.cli.run.report", lambda *args, **options: found)
    assert run(monkeypatch, "report", *bars) == bool(messages)
    assert capsys.readouterr().err.splitlines() == messages


def test_run_compares_both_ways_with_eager(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "run", "--model", "resnet18", "--engine", "reference") == 0
    printed = capsys.readouterr().out
    assert printed.count("Against eager:") == 2
    assert printed.count("1x1000") == 2
    assert "NO" not in printed


def small_example(name: str, *args: Any, **options: Any) -> Example:
    """A small detector in place of a large one, with the photograph that it would have got."""
    example = load_example(name, *args, **options)
    return replace(example, model=copy.deepcopy(small_rcnn(FasterRCNN)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "boxes"),
    [
        pytest.param(small_example, 10, id="small"),
        pytest.param(load_example, 100, marks=pytest.mark.nightly, id="large"),
    ],
)
def test_run_takes_a_detector_and_draws_what_it_finds(
    load: Callable[..., Example],
    boxes: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("fxtrt.cli.run.load_example", load)
    name, drawing = "fasterrcnn_mobilenet_v3_large_320_fpn", tmp_path / "drawn.png"
    arguments = ("--model", name, "--size", "150x128", "--engine", "reference")
    assert run(monkeypatch, "run", *arguments, "--draw", str(drawing)) == 0
    with Image.open(drawing) as drawn:
        assert drawn.size == (128, 150)
        assert (255, 0, 0) in {color for _, color in drawn.getcolors(1 << 20) or ()}
    printed = capsys.readouterr().out
    for output in ("boxes", "labels", "scores"):
        assert printed.count(f"\n{output}") == 2
    assert printed.count(f"{boxes} of {boxes}") == 6


class OffByOne(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x) + 1


def test_run_fails_where_outputs_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_right, report_right = fxtrt.compile, fxtrt.report

    def compile_wrong(model: torch.nn.Module, inputs: Any, **options: Any) -> torch.nn.Module:
        return OffByOne(compile_right(model, inputs, **options))

    def report_inside(model: torch.nn.Module) -> fxtrt.Coverage:
        return report_right(model.model if isinstance(model, OffByOne) else model)

    monkeypatch.setattr(fxtrt, "compile", compile_wrong)
    monkeypatch.setattr(fxtrt, "report", report_inside)
    assert run(monkeypatch, "run", "--model", "resnet18", "--engine", "reference") == 1
    assert "NO" in capsys.readouterr().out


def test_run_fails_where_nothing_runs_in_an_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fxtrt, "report", lambda m: fxtrt.Coverage())
    assert run(monkeypatch, "run", "--model", "resnet18", "--engine", "reference") == 1
    assert "Nothing ran in an engine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet_18"], "did you mean 'resnet18'?"),
        (["--model", "resnet18", "--engine", "tensort"], "did you mean 'tensorrt'?"),
        (["--model", "resnet18", "--precision", "float16"], "did you mean 'fp16'?"),
        (["--image", __file__], "is not an image"),
        (["--image", "nowhere.jpg"], "does not exist"),
        (["--size", "800"], "'800' is no height and width, as 800x1333"),
        (["--size", "0x5"], "'0x5' is no height and width, as 800x1333"),
        (["--input", "1x3"], "--input goes with --model package.module:function"),
        (["--model", "a:b", "--input", "1x3", "--size", "8x8"], "in place of --image and --size"),
        (["--size", f"{'1' * 5000}x5"], "is no height and width, as 800x1333"),
        (["--min-flops", "nan"], "'nan' is no number"),
        (["--json", "n" * 300], "cannot be written: File name too long"),
        (["--model", "a:b", "--input", f"1x{'1' * 5000}"], "is no shape"),
        (["--model", "a:b", "--input", "1xb"], "'1xb' is no shape, as 1x3x224x224 or 1x16:int64"),
    ],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert run(monkeypatch, "report", *arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last


@pytest.mark.parametrize("option", [("--engine", "tensort"), ("--precision", "float16")])
@pytest.mark.parametrize("command", ["report", "build", "run", "bisect"])
def test_a_wrong_option_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, command: str, option: tuple[str, str]
) -> None:
    monkeypatch.setattr("fxtrt.cli.run.Subject.load", lambda subject: pytest.fail("it began"))
    assert run(monkeypatch, command, *option) == 2


@pytest.mark.parametrize("command", ["report", "build", "run", "bisect"])
def test_an_engine_that_is_not_here_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("fxtrt.cli.run.Subject.load", lambda subject: pytest.fail("it began"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(monkeypatch, command, "--engine", "tensorrt") == 2


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("report", "--json"),
        ("report", "--html"),
        ("report", "--markdown"),
        ("build", "--save"),
        ("run", "--draw"),
    ],
)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/file.png", "there is no folder '{folder}/none'"),
        (".", "is a directory"),
        ("astray.png", "there is no folder '{folder}/none'"),
        ("loop.png", "is no file"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
    option: str,
    name: str,
    message: str,
) -> None:
    monkeypatch.setattr("fxtrt.cli.run.Subject.load", lambda subject: pytest.fail("it began"))
    (tmp_path / "astray.png").symlink_to(tmp_path / "none" / "file.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert run(monkeypatch, command, option, str(tmp_path / name)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.format(folder=tmp_path) in last


def test_a_device_is_no_place_for_an_artifact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fxtrt.cli.run.Subject.load", lambda subject: pytest.fail("it began"))
    assert run(monkeypatch, "build", "--save", "/dev/null") == 2
    assert "'/dev/null' is no regular file" in capsys.readouterr().err


def test_names_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Neither as markup nor as emoji."""
    path = tmp_path / "[" / "x].pt"
    path.parent.mkdir()
    torch.save({}, path)
    assert run(monkeypatch, "run", "--model", "a:two:three", "--weights", str(path)) == 2
    assert f"a:two:three with {path} ..." in capsys.readouterr().out


def test_a_drawing_of_no_kind_of_image_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("fxtrt.cli.run.Subject.load", lambda subject: pytest.fail("it began"))
    for name in ("drawn", "drawn.txt"):
        arguments = ("--engine", "reference", "--draw", str(tmp_path / name))
        assert run(monkeypatch, "run", *arguments) == 2
        assert f"cannot draw into {tmp_path / name}" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(coverage: fxtrt.Coverage, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("fxtrt.cli.run.report", lambda *args, **options: fxtrt.Coverage())
    monkeypatch.setattr(fxtrt.Coverage, "to_html", fail)
    assert run(monkeypatch, "report", "--html", str(tmp_path / "a.html")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fxtrt: cannot write {tmp_path / 'a.html'}: ")
    assert "No space left on device" in line


def test_an_interrupt_ends_with_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fxtrt.cli.run.report", interrupt)
    assert run(monkeypatch, "report") == 130
    assert capsys.readouterr().err.split() == ["fxtrt:", "interrupted"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\xff\xfe",
        b"",
        b"[" * 100_000,
        b'"version"',
        b'{"version": 1, "clusters": [{"ops": [1]}]}',
        b'{"version": 1, "clusters": [[]]}',
    ],
)
def test_a_diff_of_what_is_no_report_names_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes,
) -> None:
    (good := tmp_path / "good.json").write_text(fxtrt.Coverage().to_json(), encoding="utf-8")
    (bad := tmp_path / "bad.json").write_bytes(content)
    assert run(monkeypatch, "report", "--diff", str(good), str(bad)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fxtrt: {bad}: ")


def test_missing_extras_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fxtrt.cli.run", "fxtrt.diagnostics.example_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # A package has an attribute for each of its modules that was imported.
    monkeypatch.delattr("fxtrt.cli.run", raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert run(monkeypatch, "report") == 1
    assert "pip install 'fxtrt[vision]'" in capsys.readouterr().err


def test_bisect_says_where_an_engine_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("bisect", "--model", "resnet18", "--engine", "reference")
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out == "Every cluster answers like PyTorch.\n"

    def negated(ctx: Any, x: Any) -> Any:
        return ctx.unary("NEG", x)

    replace_converter(monkeypatch, torch.ops.aten.relu.default, negated)
    assert run(monkeypatch, *arguments) == 1
    printed = capsys.readouterr().out
    where = r"cluster_0: relu = aten.relu.default \[\w+.py:\d+ in forward in relu\]"
    assert re.match(where, printed), printed
    assert "largest difference" in printed
