"""Settings refuse what they do not know, and name the nearest thing that they do."""

from __future__ import annotations

import dataclasses
import os
import pwd
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fxtrt
from fxtrt.errors import SettingsError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presision": "fp16"}, "did you mean 'precision'"),
        ({"precision": "pf16"}, "did you mean 'fp16'"),
        ({"precision": "float16"}, "did you mean 'fp16'"),
        ({"precision": "bfloat16"}, "did you mean 'bf16'"),
        ({"precision": "float32"}, "did you mean 'fp32'"),
        ({"precision": "half"}, "did you mean 'fp16'"),
        ({"engine": "tensort"}, "did you mean 'tensorrt'"),
        ({"min_cluster_size": 0}, "from 1 to"),
        ({"min_cluster_size": True}, "whole number"),
        ({"optimization_level": 9}, "from 0 to 5"),
        ({"whitelist": "aten.relu"}, "sequence of strings"),
        ({"blacklist": [1]}, "strings only"),
        ({"workspace_bytes": -1}, "from 1 to"),
        ({"tf32": True}, "no option 'tf32'"),
        ({"keep_fp32": "head.*"}, "sequence of strings"),
        ({"on_build_failure": "ignore"}, "fallback, bisect, raise"),
        ({"other_sizes": "parts"}, "no option 'other_sizes'"),
        ({"most_images": 0}, "most_images must be a whole number from 1 to"),
        ({"partition": "measure"}, "did you mean 'measured'"),
        ({"fuel": -1}, "from 0 to"),
        ({"cache_dir": 5}, "a path or None"),
        ({"slots": 0}, "slots must be a whole number from 1 to"),
        ({"slot_timeout": 0}, "seconds above 0"),
        ({"slot_timeout": float("nan")}, "seconds above 0"),
        ({"slot_timeout": float("inf")}, "at most 2592000"),
        ({"slot_timeout": 10**400}, "at most 2592000"),
        ({"workspace_bytes": 2**70}, "from 1 to 9223372036854775807"),
        ({"cuda_graphs": 1}, "True, False or None"),
        ({"cuda_graphs": np.True_}, "True, False or None"),
        ({"cache_dir": ""}, "cannot be ''"),
        ({"cache_dir": "~nouser/x"}, "'~nouser/x'"),
        ({"cache_dir": "a\0b"}, "null character"),
        ({"cache_dir": "\ud800"}, "cannot be"),
        ({"cache_dir": b"plans"}, "a path or None"),
        ({"cache_trust": "everyone"}, "did you mean 'anyone'"),
        ({5: 1}, "no option 5"),
    ],
)
def test_a_wrong_option_names_the_way_out(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fxtrt.Settings.of(None, options)


def test_lists_become_tuples_and_paths_are_expanded() -> None:
    settings = fxtrt.Settings(blacklist=["a"], cache_dir="~/plans")  # type: ignore[arg-type]  # what users pass
    assert settings.blacklist == ("a",)
    assert settings.cache_dir == Path.home() / "plans"


NAMES = [field.name for field in dataclasses.fields(fxtrt.Settings)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    [
        np.array([1, 2]),
        np.array(["fp16", "auto"]),
        np.zeros(0),
        torch.zeros(2),
        2**70,
        -(2**70),
        10**400,
        float("inf"),
        float("nan"),
        1j,
        object(),
        b"auto",
        [np.array([1, 2])],
        [[]],
        {"a": np.array([1, 2])},
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_absurd_value_is_refused_by_every_field(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=name.removesuffix("s")):
        fxtrt.Settings.of(None, {name: value})


_NUMBERS = st.integers() | st.integers(-(2**80), 2**80) | st.floats() | st.booleans()
_VALUES = (
    _NUMBERS
    | st.none()
    | st.text(max_size=8)
    | st.lists(st.text(max_size=4) | _NUMBERS, max_size=3)
    | st.sets(st.text(max_size=4), max_size=3)
    | st.sampled_from(("auto", "fp16", "all", "measured", "owner", "raise", "~", "~nouser", "."))
)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.dictionaries(st.sampled_from(NAMES), _VALUES, max_size=3))
def test_settings_are_usable_or_refused(options: dict[str, Any]) -> None:
    """What is accepted is what TensorRT, a lock and a file system take, and digests."""
    try:
        made = fxtrt.Settings(**options)
    except SettingsError:
        return
    assert hash(made) == hash(fxtrt.Settings(**options))
    assert made.build_digest() == fxtrt.Settings(**options).build_digest()
    for name in ("workspace_bytes", "cache_limit_bytes"):
        assert 0 < (getattr(made, name) or 1) < 2**63
    for name in ("min_cluster_size", "most_images", "slots", "max_growth", "fuel"):
        assert 0 <= (getattr(made, name) or 0) < 2**31
    assert 0 < made.slot_timeout < threading.TIMEOUT_MAX
    assert made.cache_dir is None or made.cache_dir.is_absolute()


_SETS = """
import fxtrt
patterns = {f"aten.{letter}" for letter in "abcdefgh"}
names = ("keep_fp32", "keep_fp16", "quantize", "whitelist", "blacklist")
names += ("compute_capabilities", "tactic_sources")
made = fxtrt.Settings(cache_dir=None, **dict.fromkeys(names, patterns))
print(*(getattr(made, name) for name in names), made.build_digest())
"""


def test_a_set_gives_the_same_settings_in_every_process() -> None:
    printed = {
        subprocess.check_output(
            [sys.executable, "-c", _SETS], env=os.environ | {"PYTHONHASHSEED": seed}, text=True
        )
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    letters = tuple(f"aten.{letter}" for letter in "abcdefgh")
    assert printed.pop().startswith(" ".join([str(letters)] * 5))


def test_a_relative_folder_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fxtrt.Settings(cache_dir=Path("plans")).cache_dir == tmp_path / "plans"


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, as in a container."""

    def no_user(number: int) -> NoReturn:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "FXTRT_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_user)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_no_plans_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    assert fxtrt.Settings.of(None, {}).cache_dir is None
    assert "set FXTRT_CACHE_DIR" in caplog.text
    x = torch.ones(2)
    options: dict[str, Any] = {"engine": "reference", "min_cluster_size": 1}
    assert fxtrt.compile(torch.nn.ReLU().eval(), (x,), **options)(x).equal(x)


@pytest.mark.usefixtures("no_home")
def test_with_a_folder_or_none_the_home_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert fxtrt.Settings.of(None, {"cache_dir": None}).cache_dir is None
    assert fxtrt.Settings.of(None, {"cache_dir": tmp_path}).cache_dir == tmp_path
    monkeypatch.setenv("FXTRT_CACHE_DIR", str(tmp_path))
    assert fxtrt.Settings.of(None, {}).cache_dir == tmp_path
    assert caplog.text == ""
    with pytest.raises(SettingsError, match="'~/plans'"):
        fxtrt.Settings(cache_dir="~/plans")  # type: ignore[arg-type]  # what users pass


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_a_cache_home_that_is_no_absolute_path_is_ignored(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert fxtrt.Settings().cache_dir == tmp_path / ".cache" / "fxtrt"


@pytest.mark.parametrize("name", ["ENGINE", "PRECISION", "CACHE_DIR", "CACHE_TRUST"])
def test_an_empty_variable_is_as_one_that_is_not_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FXTRT_{name}", "")
    assert fxtrt.Settings.from_env() == fxtrt.Settings()


def test_the_environment_gives_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FXTRT_ENGINE", "reference")
    assert fxtrt.Settings.of(None, {}).engine == "reference"
    assert fxtrt.Settings.of(None, {"engine": "auto"}).engine == "auto"


def test_a_wrong_value_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FXTRT_PRECISION", "half")
    with pytest.raises(SettingsError, match="precision"):
        fxtrt.Settings.from_env()


def test_the_build_digest_follows_what_changes_the_plan() -> None:
    base = fxtrt.Settings()
    assert base.build_digest() == fxtrt.Settings(min_cluster_size=5).build_digest()
    assert base.build_digest() != fxtrt.Settings(optimization_level=1).build_digest()
    assert base.build_digest() != fxtrt.Settings(precision="fp16").build_digest()
