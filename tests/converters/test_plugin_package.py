"""A package that knows fxtrt, and that fxtrt does not know, adds converters by being installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "support" / "plugin_package"

COMPILE = """
import json, torch, fxtrt, fxtrt_bump

class Model(torch.nn.Module):
    def forward(self, x):
        return fxtrt_bump.bump(x, 2.5) + 1, fxtrt_bump.sharpen(x, 0.5)

model, x = Model().eval(), torch.randn(4, 5)
fast = fxtrt.compile(model, (x,), engine="reference", min_cluster_size=1)
for actual, expected in zip(fast(x), model(x)):
    torch.testing.assert_close(actual, expected)
coverage = fxtrt.report(fast)
print(json.dumps({
    "registered": [str(t) for t in fxtrt.registered() if t.namespace == "bump"],
    "clusters": len(coverage.clusters),
    "rejections": [row.detail for row in coverage.rejections],
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it, away from the environment."""
    # Building leaves files beside the source.
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package")
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True)
    return target


def _run(code: str, path: Path) -> Any:
    environment = os.environ | {"PYTHONPATH": str(path)}
    return json.loads(
        subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    )


def test_its_converters_are_found_and_equal_eager(installed: Path) -> None:
    found = _run(COMPILE, installed)
    assert sorted(found["registered"]) == ["bump.bump.default", "bump.sharpen.default"]
    assert found["clusters"] == 1
    (reason,) = found["rejections"]
    assert "bump.sharpen.default: " in reason
    assert "takes no plugin of version 3" in reason


def test_a_plugin_becomes_a_layer_where_the_network_takes_plugins(installed: Path) -> None:
    """No TensorRT here takes plugins: a stand-in records what would be added."""
    code = """
import json, types, torch
from unittest.mock import MagicMock
import fxtrt, fxtrt_bump
converter = fxtrt.registered()[torch.ops.bump.sharpen.default]
features = types.SimpleNamespace(has=lambda method: method == "add_plugin_v3")
ctx = MagicMock()
ctx.network.kept = []
layer = converter.build(ctx, "tensor", 0.5)
name, value, kind = ctx.trt.PluginField.call_args.args
print(json.dumps({
    "reason": converter.check({"x": torch.ones(2), "amount": 0.5}, features=features),
    "field": [name, value.tolist()],
    "kept": any(kept is value for kept in ctx.network.kept),
    "inputs": ctx.net.add_plugin_v3.call_args.args[0],
}))
"""
    assert _run(code, installed) == {
        "reason": None,
        "field": ["amount", [0.5]],
        "kept": True,
        "inputs": ["tensor"],
    }
