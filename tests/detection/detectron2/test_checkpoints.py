"""Detectron2's checkpoints load before and after compiling, by its own loader."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2

import fxtrt

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

X = torch.rand(1, 3, 64, 96)


def backbone(seed: int, norm: str = "FrozenBN") -> Any:
    """ResNet-18 with random weights and statistics."""
    require_detectron2()
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_resnet_backbone

    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res5"]
    cfg.MODEL.RESNETS.NORM = norm
    torch.manual_seed(seed)
    model = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1)
    return model


def load(model: Any, path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    DetectionCheckpointer(model).load(str(path))


def saved(model: Any, folder: Path) -> Path:
    from detectron2.checkpoint import DetectionCheckpointer

    DetectionCheckpointer(model, str(folder)).save("model")
    return folder / "model.pth"


def zoo_style(model: Any, folder: Path) -> Path:
    """As the model zoo's files: arrays by Detectron2's names in a pickle."""
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path = folder / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "a test"}))
    return path


def caffe2_style(model: Any, folder: Path) -> Path:
    """As the backbones that training starts from: Caffe2's names, norms as scale and bias."""
    blobs = {}
    for name, tensor in model.state_dict().items():
        blobs[caffe2_name(name)] = tensor.numpy()
    path = folder / "R-18.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}))
    return path


def caffe2_name(name: str) -> str:
    """res3.0.conv2.norm.weight is res3_0_branch2b_bn_s, res3.0.shortcut.weight is ..branch1_w."""
    ends = {
        "norm.weight": "bn_s",
        "norm.bias": "bn_b",
        "norm.running_mean": "bn_rm",
        "norm.running_var": "bn_riv",
        "weight": "w",
    }
    end = next(end for end in ends if name.endswith(end))
    *place, conv = name.removesuffix(f".{end}").split(".")
    if place == ["stem"]:
        return f"res_conv1_{ends[end]}" if "norm" in end else "conv1_w"
    branch = {"conv1": "branch2a", "conv2": "branch2b", "shortcut": "branch1"}[conv]
    return "_".join([*place, branch, ends[end]])


FORMS = [saved, zoo_style, caffe2_style]


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert (actual[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_loads_before_compiling(form: Any, tmp_path: Path) -> None:
    trained, model = backbone(seed=1), backbone(seed=2)
    load(model, form(trained, tmp_path))
    compiled = fxtrt.compile(model, (X,), engine="reference")
    assert list(compiled.state_dict()) == list(trained.state_dict())
    assert_same(compiled(X), trained(X))
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


@pytest.mark.parametrize("form", FORMS)
def test_after_compiling_the_new_weights_count(
    form: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained, model = backbone(seed=1), backbone(seed=2)
    compiled = fxtrt.compile(model, (X,), engine="reference")
    load(compiled, form(trained, tmp_path))
    assert_same(compiled(X), trained(X))
    assert "was changed after compiling: compile again" in caplog.text


def test_synchronised_norms_are_norms_for_one_gpu(tmp_path: Path) -> None:
    trained, model = backbone(seed=1, norm="SyncBN"), backbone(seed=2, norm="SyncBN")
    load(model, saved(trained, tmp_path))
    compiled = fxtrt.compile(model, (X,), engine="reference")
    assert list(compiled.state_dict()) == list(trained.state_dict())
    assert_same(compiled(X), trained(X))
    assert fxtrt.report(compiled).flops_share == 1.0
