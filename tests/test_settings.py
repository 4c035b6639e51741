"""Settings refuse what they do not know, and name the nearest thing that they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
        ({"min_cluster_size": 0}, "at least 1"),
        ({"min_cluster_size": True}, "whole number"),
        ({"optimization_level": 9}, "from 0 to 5"),
        ({"whitelist": "aten.relu"}, "sequence of strings"),
        ({"blacklist": [1]}, "strings only"),
        ({"workspace_bytes": -1}, "at least 1"),
        ({"tf32": True}, "no option 'tf32'"),
        ({"keep_fp32": "head.*"}, "sequence of strings"),
        ({"on_build_failure": "ignore"}, "fallback, bisect, raise"),
        ({"other_sizes": "engines"}, "parts, pytorch"),
        ({"most_images": 0}, "most_images must be a whole number at least 1"),
        ({"partition": "measure"}, "did you mean 'measured'"),
        ({"fuel": -1}, "at least 0"),
        ({"cache_dir": 5}, "a path or None"),
        ({"slots": 0}, "slots must be a whole number at least 1"),
        ({"slot_timeout": 0}, "seconds above 0"),
        ({"slot_timeout": float("nan")}, "seconds above 0"),
        ({"cuda_graphs": 1}, "True or False"),
    ],
)
def test_a_wrong_option_names_the_way_out(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fxtrt.Settings.of(None, options)


def test_lists_become_tuples_and_paths_are_expanded() -> None:
    settings = fxtrt.Settings(blacklist=["a"], cache_dir="~/plans")  # type: ignore[arg-type]  # what users pass
    assert settings.blacklist == ("a",)
    assert settings.cache_dir == Path.home() / "plans"


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
