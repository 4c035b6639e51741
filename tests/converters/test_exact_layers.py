"""Networks have the layers that a person would write by hand, and no more."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from oprow import layer_kinds
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

from fxtrt.capture.export import capture_module, trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.lowering.divide import divide
from fxtrt.partition.extract import extract
from fxtrt.pass_manager import run_passes
from fxtrt.settings import Settings

models = pytest.importorskip("torchvision.models")
detection = pytest.importorskip("torchvision.models.detection")

X = torch.randn(2, 8, 6, 6)
ROWS = torch.randn(2, 5, 8)
LINE = torch.randn(2, 8, 16)
HEADS = torch.randn(2, 4, 5, 8)
COUNTS = torch.arange(1, 25).reshape(4, 6)
MASK = torch.ones(2, 8, 6, 6, dtype=torch.bool)
PICKS = torch.tensor([2, 0, 1])
PER_CHANNEL, SHIFT = torch.randn(8), torch.randn(8)
KERNEL = torch.randn(8, 8, 3, 3)
MATRIX = torch.randn(8, 8)
TABLE = torch.randn(30, 4)

Case = tuple[Callable[..., Any], tuple[Tensor, ...], str]

ACTIVATIONS: dict[str, Case] = {
    "relu": (torch.relu, (X,), "ACTIVATION"),
    "relu6": (functional.relu6, (X,), "ACTIVATION"),
    "leaky_relu": (functional.leaky_relu, (X,), "ACTIVATION"),
    "elu": (functional.elu, (X,), "ACTIVATION"),
    "gelu": (functional.gelu, (X,), "ACTIVATION"),
    "hardsigmoid": (functional.hardsigmoid, (X,), "ACTIVATION"),
    "hardswish": (functional.hardswish, (X,), "ACTIVATION ELEMENTWISE"),
    "silu": (functional.silu, (X,), "ACTIVATION ELEMENTWISE"),
    "mish": (functional.mish, (X,), "ACTIVATION ACTIVATION ELEMENTWISE"),
    "glu": (functional.glu, (X,), "SLICE SLICE ACTIVATION ELEMENTWISE"),
    "prelu": (lambda x: functional.prelu(x, PER_CHANNEL), (X,), "CONSTANT PARAMETRIC_RELU"),
    "clamp": (lambda x: x.clamp(0, 4), (X,), "ACTIVATION"),
    "clamp_below": (lambda x: x.clamp(min=0), (X,), "CONSTANT ELEMENTWISE"),
    "clamp_to_infinity": (lambda x: x.clamp(0, torch.inf), (X,), "CONSTANT ELEMENTWISE"),
    "softmax": (lambda x: x.softmax(1), (X,), "SOFTMAX"),
    "log_softmax": (
        lambda x: x.log_softmax(1),
        (X,),
        "REDUCE ELEMENTWISE UNARY REDUCE UNARY ELEMENTWISE",
    ),
}
ARITHMETIC: dict[str, Case] = {
    "add_scalar": (lambda x: x + 1, (X,), "CONSTANT ELEMENTWISE"),
    "add": (torch.add, (X, X), "ELEMENTWISE"),
    "add_of_another_rank": (torch.add, (X, ROWS[0, 0, :6]), "SHUFFLE ELEMENTWISE"),
    "add_weight": (lambda x: x + KERNEL[0, 0, 0, 0], (X,), "CONSTANT ELEMENTWISE"),
    "one_scalar_twice": (lambda x: (x * 2) * 2, (X,), "CONSTANT ELEMENTWISE ELEMENTWISE"),
    "square": (lambda x: x**2, (X,), "ELEMENTWISE"),
    "rsqrt": (torch.rsqrt, (X,), "UNARY UNARY"),
    "div_of_integers": (lambda x: x / 3, (COUNTS,), "CAST CONSTANT ELEMENTWISE"),
    "floor_divide": (lambda x: x // 3, (COUNTS,), "CONSTANT ELEMENTWISE"),
    "remainder": (torch.remainder, (COUNTS, COUNTS), "ELEMENTWISE ELEMENTWISE ELEMENTWISE"),
    "lerp": (lambda x: x.lerp(x, 0.9), (X,), "ELEMENTWISE CONSTANT ELEMENTWISE ELEMENTWISE"),
    "eq": (torch.eq, (X, X), "ELEMENTWISE"),
    "ge": (torch.ge, (X, X), "ELEMENTWISE ELEMENTWISE ELEMENTWISE"),
    "ge_of_integers": (torch.ge, (COUNTS, COUNTS), "ELEMENTWISE UNARY"),
    "gt_of_bools": (torch.gt, (MASK, MASK), "UNARY ELEMENTWISE"),
    "where": (lambda m, x: torch.where(m, x, 0.0), (MASK, X), "CONSTANT SELECT"),
    "cast": (lambda x: x.half(), (X,), "CAST"),
}
PRODUCTS: dict[str, Case] = {
    "conv2d": (lambda x: functional.conv2d(x, KERNEL, PER_CHANNEL, padding=1), (X,), "CONVOLUTION"),
    "frozen_batch_norm": (
        lambda x: functional.conv2d(x, KERNEL) * PER_CHANNEL.view(-1, 1, 1) + SHIFT.view(-1, 1, 1),
        (X,),
        "CONVOLUTION",
    ),
    "conv1d": (
        lambda x: functional.conv1d(x, KERNEL[:, :, 0]),
        (LINE,),
        "SHUFFLE CONVOLUTION SHUFFLE",
    ),
    "conv_transpose2d": (
        lambda x: functional.conv_transpose2d(x, KERNEL, stride=2),
        (X,),
        "DECONVOLUTION",
    ),
    "linear": (
        lambda x: functional.linear(x, MATRIX, PER_CHANNEL),
        (ROWS,),
        "CONSTANT MATRIX_MULTIPLY CONSTANT ELEMENTWISE",
    ),
    "matmul": (torch.matmul, (HEADS, HEADS.mT.contiguous()), "MATRIX_MULTIPLY"),
    "einsum": (lambda a, b: torch.einsum("bnd,bmd->bnm", a, b), (ROWS, ROWS), "EINSUM"),
    "attention": (
        functional.scaled_dot_product_attention,
        (HEADS, HEADS, HEADS),
        "CONSTANT ELEMENTWISE MATRIX_MULTIPLY SOFTMAX MATRIX_MULTIPLY",
    ),
}
STATISTICS: dict[str, Case] = {
    "layer_norm": (
        lambda x: functional.layer_norm(x, (8,), PER_CHANNEL, SHIFT),
        (ROWS,),
        "CONSTANT CONSTANT NORMALIZATION",
    ),
    "group_norm": (
        lambda x: functional.group_norm(x, 4, PER_CHANNEL, SHIFT),
        (X,),
        "CONSTANT CONSTANT NORMALIZATION",
    ),
    "mean": (lambda x: x.mean((2, 3)), (X,), "REDUCE"),
    "amax": (lambda x: x.amax(1), (X,), "REDUCE"),
    "sum": (torch.sum, (X,), "REDUCE"),
    "argmax": (lambda x: x.argmax(1), (X,), "TOPK SHUFFLE"),
    "topk": (lambda x: x.topk(3), (ROWS,), "TOPK"),
    "cumsum": (lambda x: x.cumsum(1), (X,), "CONSTANT CUMULATIVE"),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 3, 2, 1), (X,), "POOLING"),
    "max_pool1d": (lambda x: functional.max_pool1d(x, 2), (LINE[0],), "SHUFFLE POOLING SHUFFLE"),
    "avg_pool2d": (lambda x: functional.avg_pool2d(x, 3, 2, 1), (X,), "POOLING"),
    "global_pool": (lambda x: functional.adaptive_avg_pool2d(x, 1), (X,), "REDUCE"),
    "adaptive_pool": (lambda x: functional.adaptive_avg_pool2d(x, 3), (X,), "POOLING"),
    "uneven_adaptive_pool": (
        lambda x: functional.adaptive_avg_pool2d(x, 4),
        (X,),
        "CONSTANT MATRIX_MULTIPLY CONSTANT MATRIX_MULTIPLY",
    ),
}
PLACES: dict[str, Case] = {
    "nearest": (lambda x: functional.interpolate(x, scale_factor=2), (X,), "RESIZE"),
    "bilinear": (lambda x: functional.interpolate(x, (9, 9), mode="bilinear"), (X,), "RESIZE"),
    "grid_sample": (
        lambda x, grid: functional.grid_sample(x, grid, align_corners=False),
        (X, torch.randn(2, 3, 3, 2)),
        "GRID_SAMPLE",
    ),
    "pad": (lambda x: functional.pad(x, (1, 2, 3, 4)), (X,), "CONSTANT SLICE"),
    "reflection_pad": (lambda x: functional.pad(x, (1, 2), "reflect"), (LINE,), "SLICE"),
    "crop": (lambda x: functional.pad(x, (-1, -1)), (X,), "SLICE"),
    "cat": (lambda x, y: torch.cat([x, y], 1), (X, X), "CONCATENATION"),
    "stack": (lambda x, y: torch.stack([x, y], 1), (X, X), "CONCATENATION SHUFFLE"),
    "slice": (lambda x: x[:, 1:, ::2], (X,), "SLICE SLICE"),
    "select": (lambda x: x[:, 0], (X,), "SLICE SHUFFLE"),
    "chunk": (lambda x: x.chunk(2, 1), (X,), "SLICE SLICE"),
    "flip": (lambda x: x.flip(3), (X,), "SLICE"),
    "roll": (lambda x: x.roll((1, 2), (2, 3)), (X,), "SLICE"),
    "expand": (lambda x: x[:, :, None].expand(2, 8, 3, 16), (LINE,), "SHUFFLE SLICE"),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), (X,), "SLICE"),
    "flatten": (lambda x: x.flatten(1), (X,), "SHUFFLE"),
    "permute_and_reshape": (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 4), (X,), "SHUFFLE"),
    "reshape_and_permute": (lambda x: x.flatten(2).transpose(1, 2), (X,), "SHUFFLE"),
    "pixel_shuffle": (lambda x: functional.pixel_shuffle(x, 2), (X,), "SHUFFLE SHUFFLE"),
    "embedding": (lambda i: functional.embedding(i, TABLE), (COUNTS,), "CONSTANT GATHER"),
    "index_select": (lambda x, i: x.index_select(1, i), (X, PICKS), "GATHER"),
    "index_with_weights": (lambda x: x[:, PICKS], (X,), "CONSTANT GATHER"),
    "gather": (lambda x, i: x.gather(1, i), (COUNTS, COUNTS % 6), "GATHER"),
    "scatter": (lambda x, i: x.scatter(1, i, x), (COUNTS, COUNTS % 6), "SCATTER"),
    "one_hot_mask": (lambda x: torch.arange(6) == x, (COUNTS,), "CONSTANT ELEMENTWISE"),
}
OPERATORS = ACTIVATIONS | ARITHMETIC | PRODUCTS | STATISTICS | PLACES


@pytest.mark.parametrize("case", OPERATORS.values(), ids=OPERATORS)
def test_layers_of_an_operator(case: Case, reference: EngineBackend) -> None:
    function, inputs, kinds = case
    gm = trace(lambda *args: function(*args), inputs)
    run_passes(gm)
    assert " ".join(layer_kinds(convert(gm, reference.features))) == kinds


CONV, RELU, ADD, VIEW = ["CONVOLUTION"], ["ACTIVATION"], ["ELEMENTWISE"], ["SHUFFLE"]
POOL, MEAN, UPSAMPLE, CAT = ["POOLING"], ["REDUCE"], ["RESIZE"], ["CONCATENATION"]
HARD_SWISH = ["ACTIVATION", "ELEMENTWISE"]
SQUEEZE_EXCITATION = [*MEAN, *CONV, "ACTIVATION", *CONV, "ACTIVATION", "ELEMENTWISE"]
LINEAR = ["CONSTANT", "MATRIX_MULTIPLY", "CONSTANT", "ELEMENTWISE"]
LAYER_NORM = ["CONSTANT", "CONSTANT", "NORMALIZATION"]
LAYER_SCALE = ["CONSTANT", "ELEMENTWISE"]
ATTENTION = ["ELEMENTWISE", "MATRIX_MULTIPLY", "SOFTMAX", "MATRIX_MULTIPLY"]

BASIC_BLOCK = CONV + RELU + CONV + ADD + RELU
BOTTLENECK = (CONV + RELU) * 3 + ADD
INVERTED_RESIDUAL = (CONV + HARD_SWISH) * 2 + SQUEEZE_EXCITATION + CONV
CONVNEXT_BLOCK = CONV + VIEW + LAYER_NORM + LINEAR + RELU + LINEAR + VIEW + LAYER_SCALE + ADD
# Queries, keys and values are one product, cut into three, each with its heads apart.
VIT_BLOCK = [
    *(LAYER_NORM + VIEW + LINEAR + VIEW * 2 + (["SLICE"] + VIEW * 2) * 3),
    *(ATTENTION + VIEW + LINEAR + VIEW + ADD),
    *(LAYER_NORM + LINEAR + RELU + LINEAR + ADD),
]

MODELS: dict[str, tuple[Callable[[], nn.Module], Any, list[str]]] = {
    "resnet18": (
        models.resnet18,
        torch.randn(1, 3, 64, 64),
        CONV + RELU + POOL + BASIC_BLOCK * 8 + CONV * 3 + MEAN + VIEW + LINEAR,
    ),
    "mobilenet_v3_small": (
        models.mobilenet_v3_small,
        torch.randn(1, 3, 64, 64),
        [
            *(CONV + HARD_SWISH + CONV + RELU + SQUEEZE_EXCITATION + CONV),
            *(((CONV + RELU) * 2 + CONV) * 2 + INVERTED_RESIDUAL * 8 + ADD * 6),
            *(CONV + HARD_SWISH + MEAN + VIEW + LINEAR + HARD_SWISH + LINEAR),
        ],
    ),
    "resnet50_fpn": (
        lambda: detection.backbone_utils.resnet_fpn_backbone(
            backbone_name="resnet50", weights=None
        ),
        torch.randn(1, 3, 64, 64),
        CONV + RELU + POOL + BOTTLENECK * 16 + CONV * 4 + CONV * 8 + (UPSAMPLE + ADD) * 3 + POOL,
    ),
    "vit": (
        lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64),
        torch.randn(1, 3, 32, 32),
        [
            *(CONV + VIEW + ["CONSTANT"] + CAT + ["CONSTANT"] + ADD),
            *(["CONSTANT"] + VIT_BLOCK * 2 + LAYER_NORM + ["SLICE"] + VIEW + LINEAR),
        ],
    ),
    "convnext_tiny": (
        models.convnext_tiny,
        torch.randn(1, 3, 64, 64),
        [
            *((CONV + VIEW + LAYER_NORM + VIEW) * 4 + CONVNEXT_BLOCK * 18),
            *(MEAN + VIEW + LAYER_NORM + VIEW + LINEAR),
        ],
    ),
    "retinanet_head": (
        lambda: detection.retinanet.RetinaNetHead(16, 9, 5, norm_layer=None),
        [torch.randn(1, 16, size, size) for size in (8, 4, 2)],
        ((CONV + RELU) * 4 + CONV + VIEW * 2) * 2 * 3 + CAT * 2,
    ),
}


@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_layers_of_a_model(
    case: tuple[Callable[[], nn.Module], Any, list[str]], reference: EngineBackend
) -> None:
    build, example, kinds = case
    gm = capture_module(build().eval(), (example,))
    run_passes(gm)
    (cluster,) = divide(gm, Target(reference, Settings())).clusters
    network = convert(extract(gm, cluster).module, reference.features)
    assert Counter(layer_kinds(network)) == Counter(kinds)


def chain(length: int) -> GraphModule:
    def function(x: Tensor) -> Tensor:
        for _ in range(length):
            x = functional.conv2d(x, KERNEL, padding=1).relu().flatten(2).view(x.shape) * 0.5 + x
        return x

    return trace(function, (X,))


def test_the_work_grows_with_the_nodes(reference: EngineBackend) -> None:
    """Counted in calls, which no other process on the machine slows down."""
    few, many = (calls_to_convert(chain(length), reference) for length in (10, 40))
    assert many < 4 * few


def calls_to_convert(gm: GraphModule, backend: EngineBackend) -> int:
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        convert(gm, backend.features)
    finally:
        sys.setprofile(None)
    return count
