"""What was saved and loaded answers as what was compiled, to the bit, or says what is not the
same."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from artifact_models import CASES, Batch, Cut, Sized, case, detector
from torch import nn
from torch.utils import _pytree as pytree

import fxtrt
from fxtrt.cache.store import entries
from fxtrt.errors import (
    ArtifactError,
    CaptureError,
    SettingsError,
)
from fxtrt.runtime.guarded_forward import GuardedForward

HERE = Path(__file__).parent


def compiled(name: str, **options: Any) -> nn.Module:
    _, dynamic_shapes, (example, *_) = CASES[name]
    options = {"engine": "reference", "min_cluster_size": 1, **options}
    return fxtrt.compile(case(name), example, dynamic_shapes=dynamic_shapes, **options)


def answers(model: nn.Module, name: str) -> list[Any]:
    with torch.no_grad():
        return [model(*call) for call in CASES[name][2]]


def assert_equal(actual: Any, expected: Any) -> None:
    assert pytree.tree_structure(actual) == pytree.tree_structure(expected)
    for a, e in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        assert torch.equal(a, e)
        assert a.stride() == e.stride()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("saved") / "model.fxtrt"
    fxtrt.save(compiled("dynamic"), path)
    return path


@pytest.fixture
def saved(first: Path, tmp_path: Path) -> Path:
    """A file of the "dynamic" model."""
    return Path(shutil.copy(first, tmp_path))


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_is_the_compiled_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = compiled(name)
    expected, before = answers(fast, name), fxtrt.report(fast)
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    monkeypatch.setattr(torch.export, "export", None)
    loaded = fxtrt.load(tmp_path / "model.fxtrt", case(name))
    assert_equal(answers(loaded, name), expected)
    after = fxtrt.report(loaded)
    assert [row.ops for row in after.clusters] == [row.ops for row in before.clusters]
    assert [row.module_paths for row in after.clusters] == [
        row.module_paths for row in before.clusters
    ]
    assert after.rejections == before.rejections
    assert fallbacks(loaded) == fallbacks(fast)
    assert len(fallbacks(fast)) == (2 if name == "parts" else 1)


def test_what_restored_sizes_leave_open_is_narrowed_as_before(tmp_path: Path) -> None:
    model, call = Sized().eval(), (torch.rand(1, 3, 16, 24),)
    sides = ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    fast = fxtrt.compile(model, call, dynamic_shapes=sides, engine="reference", precision="fp16")
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", model)
    with torch.no_grad():
        assert_equal(loaded(*call), fast(*call))
    assert fallbacks(loaded) == [{}]


class Picked(nn.Module):
    """Results as torch's operators give them."""

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.sigmoid(x) * 2 + 1
        return {"best": y.topk(3), 7: [y.max(dim=1), (y.sort(dim=0),)]}


@pytest.mark.parametrize("named", [True, False])
def test_results_of_torchs_own_types_come_back(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not named:  # as before torch registered them with names
        for kind in torch.return_types.all_return_types:
            unnamed = replace_name(pytree.SUPPORTED_SERIALIZED_TYPES[kind])
            monkeypatch.setitem(pytree.SUPPORTED_SERIALIZED_TYPES, kind, unnamed)
    model, x = Picked().eval(), torch.randn(5, 4)
    fast = fxtrt.compile(model, (x,), engine="reference", min_cluster_size=1)
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    found = fxtrt.load(tmp_path / "model.fxtrt", model)(x)
    assert_equal(found, model(x))
    assert type(found["best"]) is torch.return_types.topk


def replace_name(known: Any) -> Any:
    return known._replace(serialized_type_name=pytree.NO_SERIALIZED_TYPE_NAME_FOUND)


class Counting(nn.Module):
    """Writes to a buffer at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)  # type: ignore[operator]  # a buffer
        return torch.relu(x) * 2 + 1


def test_a_model_that_writes_to_its_buffer_is_saved(tmp_path: Path) -> None:
    fast = fxtrt.compile(Counting().eval(), (torch.randn(4),), engine="reference")
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    found, x = fxtrt.load(tmp_path / "model.fxtrt", Counting().eval()), torch.randn(4)
    assert torch.equal(found(x), torch.relu(x) * 2 + 1)
    assert found.get_buffer("calls").tolist() == [1]


def fallbacks(model: nn.Module) -> list[Mapping[str, int]]:
    forwards = [vars(module).get("forward") for module in model.modules()]
    return [one.fallbacks for one in forwards if isinstance(one, GuardedForward)]


_LOADER = """
import sys, torch, fxtrt
from artifact_models import CASES, Batch, Cut, Sized, case, detector
from test_save_load import answers

torch.export.export = None
path, detectors, out = sys.argv[1:]
found = fxtrt.load(detectors, detector()[0])
with torch.no_grad():
    detections = found(*detector()[1])
assert not found.forward.fallbacks
torch.save([answers(fxtrt.load(path, case("dynamic")), "dynamic"), detections], out)
"""


def test_all_structures_of_calls_come_back(tmp_path: Path) -> None:
    calls = [([torch.randn(3, 8, 8)] * count, 2) for count in (1, 2, 3)]
    model = Batch().eval()
    options: dict[str, Any] = {"engine": "reference", "min_cluster_size": 1}
    fast = fxtrt.compile(model, calls[0], more_inputs=calls[1:2], **options)
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", model)
    with torch.no_grad():
        assert_equal([loaded(*call) for call in calls], [fast(*call) for call in calls])
    assert fallbacks(loaded) == fallbacks(fast) != [{}]


def test_another_process_gives_the_same_bits(saved: Path, tmp_path: Path) -> None:
    """For convolutions of dynamic sizes, and for a detector that is one graph."""
    model, inputs = detector()
    fast = fxtrt.compile(model, inputs, engine="reference")
    path, out = tmp_path / "detector.fxtrt", tmp_path / "out"
    fxtrt.save(fast, path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-c", _LOADER, str(saved), str(path), str(out)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with torch.no_grad():
        expected = fast(*inputs)
    assert expected[0]["boxes"].shape[0] > 0
    assert_equal(torch.load(out), [answers(compiled("dynamic"), "dynamic"), expected])
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert path.stat().st_size < weights / 10


def test_plans_are_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FXTRT_CACHE_DIR", str(tmp_path / "other"))
    path, options = tmp_path / "model.fxtrt", {"engine": "tensorrt_rtx", "optimization_level": 0}
    fast = compiled("static", cache_dir=tmp_path / "cache", **options)
    fxtrt.save(fast, path)
    with monkeypatch.context() as patch:
        for name in ("mkdtemp", "mkstemp"):  # there may be nowhere to write to
            patch.setattr(tempfile, name, None)
        loaded = fxtrt.load(path, case("static"))
    builds = [row.build for row in fxtrt.report(loaded).clusters]
    assert builds
    assert all(build is not None and build.cached for build in builds)
    assert entries(tmp_path / "other") == []
    with pytest.raises(ArtifactError, match="copy that one"):
        fxtrt.save(loaded, path)
    for entry in entries(tmp_path / "cache"):
        entry.path.unlink()
    with pytest.raises(ArtifactError, match="has left"):
        fxtrt.save(fast, path)
    with pytest.raises(ArtifactError, match="keeps no plans"):
        fxtrt.save(compiled("static", cache_dir=None, **options), path)


def test_a_damaged_plan_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.fxtrt"
    options = {"engine": "tensorrt_rtx", "optimization_level": 0, "cache_dir": tmp_path}
    fxtrt.save(compiled("static", **options), path)
    with zipfile.ZipFile(path) as archive:
        (plan,) = (info for info in archive.infolist() if info.filename.startswith("plans/"))
        data = {info.filename: archive.read(info) for info in archive.infolist()}
        comment = archive.comment
    damaged = data[plan.filename]
    data[plan.filename] = damaged[:-1] + bytes([damaged[-1] ^ 1])
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = comment
        for name, content in data.items():
            archive.writestr(name, content)
    with caplog.at_level(logging.WARNING):
        loaded = fxtrt.load(path, case("static"))
    assert "is damaged" in caplog.text
    assert "save the model again" in caplog.text
    assert [row.build.cached for row in fxtrt.report(loaded).clusters if row.build] == [False]


def change_list(model: Any) -> None:
    model.factors[1] = 0.75


def change_object(model: Any) -> None:
    model.second.padding_mode = "reflect"


def change_config(model: Any) -> None:
    model.config.names.add("fourth")


def change_closure(model: Any) -> None:
    model.config.scale = functools.partial(model.config.scale.func, 3)


def add_hook(model: Any) -> None:
    model.second.register_forward_hook(lambda module, args, result: result * 2)


def replace_forward(model: Any) -> None:
    model.norm.forward = model.first.forward


def change_weight(model: Any) -> None:
    with torch.no_grad():
        model.second.bias[0] += 1


def change_buffer(model: Any) -> None:
    model.norm.running_mean += 1


def change_module(model: Any) -> None:
    model.norm = nn.InstanceNorm2d(4).eval()


def change_dtype(model: Any) -> None:
    model.first.half()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (change_list, "attribute 'factors' was"),
        (change_object, "attribute 'second.padding_mode' was 'zeros', and is now 'reflect'"),
        (change_config, "attribute 'config' was"),
        (change_closure, "attribute 'config' was"),
        (add_hook, "attribute 'second._forward_hooks' was not there"),
        (replace_forward, "attribute 'norm.forward' was not there"),
        (change_weight, "other weights"),
        (change_buffer, "other weights"),
        (change_module, "module 'norm' was torch.nn.modules.batchnorm.BatchNorm2d"),
        (change_dtype, "weight 'first.bias' was torch.float32"),
    ],
)
def test_a_changed_model_is_refused(change: Callable[[Any], None], names: str, saved: Path) -> None:
    model = case("dynamic")
    change(model)
    with pytest.raises(ArtifactError, match=names):
        fxtrt.load(saved, model)


def test_a_class_that_was_changed_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Sized, "forward", Cut.forward)
        with pytest.raises(ArtifactError, match=r"class attribute '.*Sized.forward' was"):
            fxtrt.load(saved, case("dynamic"))
    monkeypatch.setattr(Sized, "upper", True)
    with pytest.raises(ArtifactError, match=r"class attribute '.*Sized.upper' was False"):
        fxtrt.load(saved, case("dynamic"))


def test_another_model_or_one_in_training_is_refused(saved: Path) -> None:
    with pytest.raises(ArtifactError, match=r"the module '' was artifact_models.Sized"):
        fxtrt.load(saved, Cut().eval())
    with pytest.raises(CaptureError, match="training mode"):
        fxtrt.load(saved, case("dynamic").train())


def test_a_changed_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "written_model.py"
    text = "import torch\nclass Net(torch.nn.Module):\n"
    text += "    def forward(self, x):\n        return x.relu() + 1\n"
    source.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("written_model")
    path, x = tmp_path / "model.fxtrt", torch.randn(4, 4)
    fxtrt.save(fxtrt.compile(module.Net().eval(), (x,), engine="reference"), path)
    fxtrt.load(path, module.Net().eval())
    source.write_text(text.replace("+ 1", "+ 2"))
    with pytest.raises(ArtifactError, match="the source of written_model has changed"):
        fxtrt.load(path, module.Net().eval())


def test_another_version_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxtrt.serialization.model_identity.code_digest", lambda: "another")
    with pytest.raises(ArtifactError, match='the version of "fxtrt\'s code" was'):
        fxtrt.load(saved, case("dynamic"))


def test_what_cannot_be_compared_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fxtrt.artifact.save_load"):
        fxtrt.save(compiled("static"), tmp_path / "model.fxtrt")
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name == "fxtrt.artifact.save_load"
    ]
    assert told == ["fxtrt.load will not see whether the content of log is the same"]


def test_settings_are_kept_and_some_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.fxtrt"
    fxtrt.save(compiled("dynamic", blacklist=("aten.sigmoid",), slots=2), path)
    loaded = fxtrt.load(path, case("dynamic"), slots=3)
    report = fxtrt.report(loaded)
    assert [row.code for row in report.rejections if row.target == "aten.sigmoid.default"] == [
        "blacklist"
    ]
    assert report.runtime[0].slots == 3
    whole = fxtrt.load(path, case("dynamic"), blacklist=())
    assert fxtrt.report(whole).rejections == ()
    with pytest.raises(SettingsError, match="was captured with max_growth=None"):
        fxtrt.load(path, case("dynamic"), max_growth=2)
    with pytest.raises(SettingsError, match="no option"):
        fxtrt.load(path, case("dynamic"), slot=3)  # type: ignore[call-arg]  # that is the point


def test_what_cannot_be_saved_says_why(tmp_path: Path) -> None:
    path = tmp_path / "model.fxtrt"
    with pytest.raises(ArtifactError, match="takes what"):
        fxtrt.save(case("static"), path)
    with pytest.raises(ArtifactError, match="compile without it"):
        fxtrt.save(compiled("static", fuel=1), path)
    fast = compiled("static")
    change_weight(fast)
    with pytest.raises(ArtifactError, match="changed after compiling"):
        fxtrt.save(fast, path)
    assert list(tmp_path.iterdir()) == []
