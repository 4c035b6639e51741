"""Rows of converters/normalization.py."""

from __future__ import annotations

from typing import Any

import torch

from .row import OpRow, T, W

aten = torch.ops.aten

X = T((2, 8, 5, 6))
HALF = T((2, 8, 5, 6), torch.float16)
BRAIN = T((2, 8, 5, 6), torch.bfloat16)
VAR = W(8, low=0.1, high=2.0)
STATISTICS = (W(8), W(8), W(8), VAR)


def row(target: Any, *args: Any, **options: Any) -> OpRow:
    return OpRow(target, args, **options)


def first(target: Any, *args: Any, **options: Any) -> OpRow:
    """Return a row for the first output of an operator with several."""
    return OpRow(target, args, call=lambda *args: target(*args)[0], **options)


def weights(*shape: int, dtype: torch.dtype) -> T:
    return T(shape, dtype, weight=True)


no_training = aten._native_batch_norm_legit_no_training.default
BATCH_NORM = [
    first(no_training, X, *STATISTICS, 0.1, 1e-5, dynamic=True),
    first(no_training, X, None, None, W(8), VAR, 0.1, 1e-3, name="plain"),
    first(no_training, T((4, 8)), *STATISTICS, 0.1, 1e-5, name="rank2", dynamic=True),
    first(no_training, T((4, 8, 3)), *STATISTICS, 0.1, 1e-5, name="rank3", dynamic=True),
    first(no_training, T((1, 8, 3, 4, 5)), *STATISTICS, 0.1, 1e-5, name="rank5"),
    first(no_training, HALF, *STATISTICS, 0.1, 1e-5, name="fp16", tolerance=2e-3),
    first(no_training, BRAIN, *STATISTICS, 0.1, 1e-5, name="bf16", tolerance=2e-2),
    first(
        no_training,
        *(X, W(8), W(8), T((8,)), T((8,), low=0.1, high=2.0), 0.1, 1e-2),
        name="computed",
        dynamic=True,
    ),
    first(no_training, T((4, 8)), W(8), None, T((8,)), VAR, 0.1, 1e-2, name="computed_rank2"),
    first(no_training, X, T((8,)), T((8,)), W(8), VAR, 0.1, 1e-2, name="computed_weights"),
    first(
        no_training,
        BRAIN,
        T((8,)),
        *STATISTICS[1:],
        0.1,
        1e-5,
        name="computed_bf16",
        tolerance=2e-2,
    ),
    first(
        aten._native_batch_norm_legit.default,
        *(X, T((8,)), *STATISTICS[1:], False, 0.1, 1e-5),
        name="computed",
    ),
    row(no_training, X, None, None, W(8), VAR, 0.1, 1e-5, name="all_outputs", rejected="empty"),
    first(aten._native_batch_norm_legit.default, X, *STATISTICS, False, 0.1, 1e-5, dynamic=True),
    first(
        aten._native_batch_norm_legit.default,
        *(X, *STATISTICS, True, 0.1, 1e-5),
        name="training",
        rejected="training=True",
    ),
]

LAYER_NORM = [
    row(aten.layer_norm.default, T((2, 3, 8)), [8], W(8), W(8), name="affine", dynamic=True),
    row(aten.layer_norm.default, T((2, 3, 8)), [8]),
    row(aten.layer_norm.default, X, [5, 6], W(5, 6), None, 1e-3, name="no_bias"),
    row(aten.layer_norm.default, T((8,)), [8], W(8), W(8), name="rank1"),
    row(
        aten.layer_norm.default,
        T((2, 3, 8)),
        call=lambda x: aten.layer_norm.default(x, [x.shape[-1]]),
        dynamic=True,
        name="dynamic",
    ),
    row(
        aten.layer_norm.default,
        T((2, 3, 8), torch.float16),
        [8],
        weights(8, dtype=torch.float16),
        weights(8, dtype=torch.float16),
        name="fp16",
        tolerance=4e-3,
    ),
    row(
        aten.layer_norm.default,
        *(T((2, 3, 8), torch.bfloat16), [8], W(8), W(8)),
        name="bf16_mixed",
        tolerance=2e-2,
    ),
    first(aten.native_layer_norm.default, T((2, 3, 8)), [8], W(8), W(8), 1e-5),
    row(
        aten.native_layer_norm.default,
        *(T((2, 3, 8)), [8], W(8), W(8), 1e-5),
        call=lambda *args: aten.native_layer_norm.default(*args)[1],
        name="mean",
        rejected="output 1 is used",
    ),
]

GROUP_NORM = [
    row(aten.group_norm.default, X, 4, W(8), W(8), dynamic=True),
    row(
        *(aten.group_norm.default, X, 4),
        dynamic=True,
        name="dynamic_channels",
        rejected="the number of channels",
    ),
    row(aten.group_norm.default, X, 4, name="plain"),
    row(aten.group_norm.default, X, 1, W(8), W(8), name="one_group"),
    row(aten.group_norm.default, X, 8, W(8), W(8), name="group_per_channel"),
    row(aten.group_norm.default, T((2, 8)), 4, W(8), W(8), name="rank2"),
    row(aten.group_norm.default, T((2, 8, 5)), 4, W(8), W(8), name="rank3"),
    row(aten.group_norm.default, T((2, 8, 3, 2, 2)), 4, W(8), W(8), 1e-3, name="rank5"),
    row(aten.group_norm.default, X, 4, T((8,)), T((8,)), name="weights_input"),
    row(aten.group_norm.default, HALF, 4, W(8), W(8), name="fp16_mixed", tolerance=4e-3),
    row(aten.group_norm.default, BRAIN, 4, name="bf16", tolerance=2e-2),
    first(aten.native_group_norm.default, X, W(8), W(8), 2, 8, 30, 4, 1e-5),
]

INSTANCE_NORM = [
    row(aten.instance_norm.default, X, W(8), W(8), None, None, True, 0.1, 1e-5, True, dynamic=True),
    row(
        aten.instance_norm.default,
        *(T((2, 8, 5)), None, None, None, None, True, 0.1, 1e-5, True),
        name="rank3",
    ),
    row(
        aten.instance_norm.default,
        *(X, *STATISTICS, False, 0.1, 1e-5, True),
        name="running",
    ),
    row(
        aten.instance_norm.default,
        *(X, *STATISTICS, True, 0.1, 1e-5, True),
        name="updates",
        rejected="updates running_mean",
    ),
]

RMS_NORM = [
    row(aten.rms_norm.default, T((2, 3, 8)), [8], W(8), 0.1, dynamic=True),
    row(aten.rms_norm.default, T((2, 3, 8)), [3, 8], None, None, name="plain"),
    row(
        aten.rms_norm.default,
        *(T((2, 3, 8), torch.float16), [8], weights(8, dtype=torch.float16), 1e-6),
        name="fp16",
        tolerance=4e-3,
    ),
    row(
        aten.rms_norm.default,
        *(T((2, 3, 8), torch.bfloat16), [8], None, None),
        name="bf16",
        rejected="eps=None",
    ),
    row(aten.rms_norm.default, HALF, [6], W(6), 1e-6, name="mixed", rejected="torch.float32"),
]

ROWS = BATCH_NORM + LAYER_NORM + GROUP_NORM + INSTANCE_NORM + RMS_NORM
