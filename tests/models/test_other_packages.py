"""Models of other packages, as in docs/how-to/other-models.md: one engine that equals eager."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

import fxtrt

pytestmark = pytest.mark.filterwarnings("ignore")  # These packages, and what they import, warn.

_TAKES_KEYWORDS = "kwargs" in inspect.signature(fxtrt.compile).parameters
_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def compiled(model: nn.Module, inputs: Mapping[str, Any], **options: Any) -> nn.Module:
    """The model compiled for a call with keyword arguments, or else with positional ones."""
    options = {"engine": "reference", **options}
    if _TAKES_KEYWORDS:
        return fxtrt.compile(model, kwargs=inputs, **options)
    if "dynamic_shapes" in options:
        options["dynamic_shapes"] = tuple(options["dynamic_shapes"].values())
    return fxtrt.compile(model, tuple(inputs.values()), **options)


def call(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        return model(**inputs) if _TAKES_KEYWORDS else model(*inputs.values())


def assert_as_eager(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    leaves, wanted = pytree.tree_leaves(actual), pytree.tree_leaves(expected)
    assert len(leaves) == len(wanted)
    for a, e in zip(leaves, wanted, strict=True):
        torch.testing.assert_close(a, e, atol=1e-5, rtol=1e-4)


def assert_whole(fast: nn.Module) -> None:
    """All of it is in one engine, and no call left that engine."""
    report = fxtrt.report(fast)
    assert len(report.clusters) == 1
    assert report.flops_share == 1.0
    assert report.rejections == ()
    assert [row.fallbacks for row in report.runtime] == [()]


def texts(batch: int, length: int) -> dict[str, Tensor]:
    """What a tokenizer returns for texts of different lengths."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length // 2 + 1 :] = 0
    return {"input_ids": torch.randint(50, (batch, length)), "attention_mask": mask}


def pictures(batch: int, side: int) -> dict[str, Tensor]:
    """What an image processor returns."""
    return {"pixel_values": torch.randn(batch, 3, side, side)}


def bert(transformers: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=64, **_SMALL)
    return transformers.BertForSequenceClassification(config), texts(2, 12)


def vit(transformers: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **_SMALL)
    return transformers.ViTForImageClassification(config), pictures(1, 32)


def yolos(transformers: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    sizes = {"image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 6}
    config = transformers.YolosConfig(num_labels=4, **sizes, **_SMALL)
    return transformers.YolosForObjectDetection(config), pictures(1, 32)


def segformer(transformers: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 32],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=3,
    )
    return transformers.SegformerForSemanticSegmentation(config), pictures(2, 64)


@pytest.mark.parametrize("make", [bert, vit, yolos, segformer])
def test_a_transformers_model(
    make: Callable[[Any], tuple[nn.Module, dict[str, Tensor]]],
) -> None:
    torch.manual_seed(0)
    model, inputs = make(pytest.importorskip("transformers"))
    fast = compiled(model.eval(), inputs)
    other = {
        name: value.flip(-1) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    for given in (inputs, other):
        assert_as_eager(call(fast, given), call(model, given))
    assert_whole(fast)


def test_texts_of_any_length() -> None:
    torch.manual_seed(0)
    model, inputs = bert(pytest.importorskip("transformers"))
    varies = {0: Dim.DYNAMIC(min=1, max=8), 1: Dim.DYNAMIC(min=1, max=64)}
    fast = compiled(model.eval(), inputs, dynamic_shapes=dict.fromkeys(inputs, varies))
    for batch, length in ((2, 12), (3, 20), (8, 64), (2, 2)):
        given = texts(batch, length)
        assert_as_eager(call(fast, given), call(model, given))
    assert_whole(fast)


def test_generate_runs_in_pytorch_and_writes_the_same() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, use_cache=False)
    model = transformers.GPT2LMHeadModel(config).eval()
    words = {"input_ids": torch.randint(1, 50, (1, 6))}
    fast: Any = compiled(model, words)
    assert_as_eager(call(fast, words), call(model, words))
    options = {"max_new_tokens": 4, "do_sample": False, "use_cache": True}
    written = fast.generate(words["input_ids"], **options)
    assert torch.equal(written, model.generate(words["input_ids"], **options))


def test_a_transformers_model_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = vit(pytest.importorskip("transformers"))
    fxtrt.save(compiled(model.eval(), inputs), tmp_path / "vit.fxtrt")
    loaded = fxtrt.load(tmp_path / "vit.fxtrt", model)
    assert_as_eager(call(loaded, inputs), call(model, inputs))
    assert_whole(loaded)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", {}),
        ("resnet10t", {"features_only": True}),
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "num_classes": 7}),
    ],
)
def test_a_timm_model(name: str, options: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **options).eval()
    batches = {0: Dim.DYNAMIC(min=1, max=8)}
    example = (torch.randn(2, 3, 64, 64),)
    fast = fxtrt.compile(model, example, dynamic_shapes=(batches,), engine="reference")
    with torch.no_grad():
        for batch in (2, 5, 8):
            images = torch.randn(batch, 3, 64, 64)
            assert_as_eager(fast(images), model(images))
    assert_whole(fast)


def test_a_segmentation_models_pytorch_model() -> None:
    smp = pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed"
    )
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    assert_image_model(model)


def test_an_ultralytics_model() -> None:
    ultralytics = pytest.importorskip(
        "ultralytics", reason="ultralytics, under AGPL-3.0, is not installed"
    )
    torch.manual_seed(0)
    assert_image_model(ultralytics.YOLO("yolo11n.yaml").model.eval())


def assert_image_model(model: nn.Module) -> None:
    example = torch.rand(1, 3, 64, 64)
    fast = fxtrt.compile(model, (example,), engine="reference")
    with torch.no_grad():
        for image in (example, torch.rand(1, 3, 64, 64)):
            assert_as_eager(fast(image), model(image))
    assert_whole(fast)
