"""Rows of converters/casting.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V

aten = torch.ops.aten

X = T((2, 3, 4), low=-9.0, high=9.0)
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool]

ROWS = [
    *(
        OpRow(
            aten._to_copy.default,
            (T((2, 3, 4), source),),
            {"dtype": target},
            dynamic=True,
            name=f"{source}_to_{target}".replace("torch.", ""),
        )
        for source in DTYPES
        for target in DTYPES
    ),
    OpRow(aten._to_copy.default, (X,), name="no_dtype"),
    OpRow(aten._to_copy.default, (V(-2.7, 2.7, -0.5, 0.99),), {"dtype": torch.int64}, name="trunc"),
    OpRow(
        aten._to_copy.default,
        (V(0.3, math.nan, 0.0, -0.0, math.inf),),
        {"dtype": torch.bool},
        name="what_is_true",
    ),
    OpRow(
        aten._to_copy.default,
        (V(256, 1 << 32, 0, dtype=torch.int64),),
        {"dtype": torch.bool},
        name="integers_that_are_true",
    ),
    OpRow(aten._to_copy.default, (X,), {"dtype": torch.float64}, rejected="torch.float64"),
    OpRow(
        aten._to_copy.default,
        (X,),
        {"device": torch.device("meta")},
        name="device",
        rejected="device=meta is not cpu",
    ),
    OpRow(aten._to_copy.default, (X,), {"device": torch.device("cpu")}, name="same_device"),
    OpRow(aten.clone.default, (X,), dynamic=True),
    OpRow(
        aten.clone.default,
        (T((2, 3, 4, 5)),),
        {"memory_format": torch.channels_last},
        name="channels_last",
    ),
    OpRow(aten.alias.default, (X,), dynamic=True),
    OpRow(aten.detach.default, (X,), dynamic=True),
    OpRow(aten.lift_fresh_copy.default, (X,), dynamic=True),
    OpRow(aten.copy.default, (X, T((3, 4))), dynamic=True),
    OpRow(aten.copy.default, (T((2, 3), torch.int32), T((1, 3))), name="dtype"),
]
