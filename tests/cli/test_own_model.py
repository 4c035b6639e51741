"""The command line with weights of one's own, and with models of one's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from torch import nn

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from torchvision.models import get_model

import fxtrt
from fxtrt.diagnostics.weight_file import load_weights

SOURCE = '''
import torch
from torch import nn


class Words(nn.Module):
    """Takes a sentence and a mask."""

    def __init__(self):
        super().__init__()
        self.names = nn.Embedding(9, 6)
        self.mixed = nn.Linear(6, 4)

    def forward(self, words, mask):
        return torch.relu(self.mixed(self.names(words))).softmax(-1) * mask[..., None]


def words():
    torch.manual_seed(3)
    return Words()


def picture():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.ReLU(), nn.Sigmoid())


class Made:
    picture = staticmethod(picture)


ready = picture()
number = 3


def nothing():
    return None


def lacking():
    import a_package_that_is_not_there
'''


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A module of the user's in the current folder."""
    (tmp_path / "own_models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield importlib.import_module("own_models")
    del sys.modules["own_models"]


def random_weights(model: nn.Module, file: Path) -> nn.Module:
    """The model with weights that only this file has."""
    torch.manual_seed(5)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    if file.suffix == ".safetensors":
        torch_files = pytest.importorskip("safetensors.torch")
        torch_files.save_file(model.state_dict(), file)
    else:
        torch.save(model.state_dict(), file)
    return model.eval()


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_what_build_saves_loads_and_answers_like_eager(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    weights, saved = tmp_path / name, tmp_path / "squeezenet.fxtrt"
    model = random_weights(get_model("squeezenet1_1", weights=None), weights)
    options = ("--size", "64x64", "--engine", "reference", "--weights", str(weights))
    assert (
        run(monkeypatch, "build", "--model", "squeezenet1_1", *options, "--save", str(saved)) == 0
    )
    fast, x = fxtrt.load(saved, model), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))
    (row,) = fxtrt.report(fast).clusters
    assert row.engine == "reference"


def test_a_model_of_ones_own_is_built_saved_and_loaded(
    monkeypatch: pytest.MonkeyPatch, own: Any
) -> None:
    inputs = ("--input", "2x5:int64", "--input", "2x5")
    base = ("build", "--model", "own_models:words", "--engine", "reference", *inputs)
    assert run(monkeypatch, *base, "--save", "words.fxtrt") == 0
    model = own.words().eval()
    fast = fxtrt.load("words.fxtrt", model)
    x, mask = torch.randint(9, (2, 5)), torch.rand(2, 5)
    with torch.no_grad():
        torch.testing.assert_close(fast(x, mask), model(x, mask))
    runtime = fxtrt.report(fast).runtime
    assert [row.fallbacks for row in runtime] == [()]


def test_what_serves_alone_is_built_and_verified(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: Any
) -> None:
    inputs = ("--input", "2x5:int64", "--input", "2x5")
    base = ("build", "--model", "own_models:words", "--engine", "reference", *inputs)
    assert run(monkeypatch, *base, "--with-weights") == 2
    assert "--with-weights goes with --save" in capsys.readouterr().err
    assert run(monkeypatch, *base, "--save", "words.fxtrt", "--with-weights") == 0
    assert run(monkeypatch, "verify", "words.fxtrt", "--rebuild") == 0
    assert "answers as when it was saved" in capsys.readouterr().out
    x, mask = torch.randint(9, (2, 5)), torch.rand(2, 5)
    with torch.no_grad():
        expected = own.words().eval()(x, mask)
        torch.testing.assert_close(fxtrt.load("words.fxtrt")(x, mask), expected)


def test_weights_for_a_model_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, own: Any, tmp_path: Path
) -> None:
    model = random_weights(own.words(), tmp_path / "words.pt")
    base = ("build", "--model", "own_models:words", "--engine", "reference")
    options = ("--input", "1x4:int64", "--input", "1x4", "--weights", "words.pt")
    assert run(monkeypatch, *base, *options, "--save", "words.fxtrt") == 0
    x, mask = torch.randint(9, (1, 4)), torch.rand(1, 4)
    with torch.no_grad():
        torch.testing.assert_close(fxtrt.load("words.fxtrt", model)(x, mask), model(x, mask))
    with pytest.raises(fxtrt.errors.ArtifactError, match="other weights"):
        fxtrt.load("words.fxtrt", own.words().eval())


@pytest.mark.parametrize("name", ["picture", "Made.picture", "ready"])
@pytest.mark.parametrize("command", ["report", "run", "bisect"])
def test_every_command_shows_a_model_of_ones_own_the_photograph(
    monkeypatch: pytest.MonkeyPatch, own: Any, command: str, name: str
) -> None:
    arguments = ("--model", f"own_models:{name}", "--engine", "reference", "--size", "40x48")
    torch.compiler.reset()
    assert run(monkeypatch, command, *arguments) == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere:f", "there is no module 'nowhere'"),
        ("own_models.deeper:f", "there is no module 'own_models.deeper'"),
        ("own_models:wrods", "own_models has no 'wrods'"),
        ("own_models:", "own_models has no ''"),
        (":words", "'' is no module's whole name"),
        (".own_models:words", "'.own_models' is no module's whole name"),
        ("own_models:number", "this is no torch.nn.Module, but <class 'int'>"),
        ("own_models:nothing", "this is no torch.nn.Module, but <class 'NoneType'>"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own: Any,
    model: str,
    message: str,
) -> None:
    assert run(monkeypatch, "report", "--model", model, "--input", "1x3") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_what_the_users_code_raises_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, own: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["fxtrt", "report", "--model", "own_models:lacking"])
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        importlib.import_module("fxtrt.cli.main").main()


def test_a_dtype_that_torch_does_not_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: Any
) -> None:
    for dtype in ("float31", "nn"):
        arguments = ("--model", "own_models:words", "--input", f"1x3:{dtype}")
        assert run(monkeypatch, "report", *arguments) == 2
        assert f"torch has no dtype '{dtype}'" in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["1x3:bits8", "1x3:quint8", "999999999x999999999x999999999:int8"])
def test_an_input_that_cannot_be_made_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: Any, shape: str
) -> None:
    arguments = ("--model", "own_models:words", "--input", shape)
    assert run(monkeypatch, "report", *arguments) == 2
    assert f"--input: cannot make {shape}: " in capsys.readouterr().err


@pytest.mark.parametrize("subject", [("--model", "resnet18"), ("--detectron2", "a.yaml")])
def test_random_weights_are_not_saved(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    subject: tuple[str, str],
) -> None:
    monkeypatch.setattr("fxtrt.cli.run.build", lambda *given: pytest.fail("it began"))
    assert run(monkeypatch, "build", *subject, "--save", str(tmp_path / "a.fxtrt")) == 2
    assert "--save needs --weights" in capsys.readouterr().err


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_the_weights_may_lie_in_a_checkpoint(tmp_path: Path, wrapper: str | None) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    state: Any = source.state_dict()
    saved = state if wrapper is None else {wrapper: state, "epoch": 3, "lr": [0.1]}
    torch.save(saved, tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, source.bias)


class RunsCode:
    def __reduce__(self) -> Any:
        return pytest.fail, ("the file ran code",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.ones(2, 3)}, "lacks bias"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}, "adds more"),
        ({"weight": torch.ones(9, 3), "bias": torch.ones(2)}, "size mismatch for weight"),
        ([1, 2], "no dictionary of tensors"),
        ({"weight": 1}, "no dictionary of tensors"),
        ({"weight": RunsCode()}, "is not a file of weights"),
    ],
)
def test_wrong_weights_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, file := tmp_path / "weights.pt")
    with pytest.raises(fxtrt.errors.SettingsError, match=message):
        load_weights(nn.Linear(3, 2), file)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04", b"\x80\x02}"])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes, name: str) -> None:
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(fxtrt.errors.SettingsError, match=f"{name} is not a file of weights"):
        load_weights(nn.Linear(3, 2), tmp_path / name)
