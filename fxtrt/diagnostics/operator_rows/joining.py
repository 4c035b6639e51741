"""Rows of converters/joining.py."""

from __future__ import annotations

import torch

from .row import OpRow, T, W

aten = torch.ops.aten

ROWS = [
    OpRow(aten.cat.default, ([T((2, 3, 4)), T((2, 5, 4))], 1), dynamic=True),
    OpRow(aten.cat.default, ([T((2, 3)), T((2, 4))], -1), dynamic=True, name="negative"),
    OpRow(aten.cat.default, ([T((2, 3))],), name="one"),
    OpRow(aten.cat.default, ([T((2, 3)), W(4, 3)],), name="weight"),
    OpRow(
        aten.cat.default,
        ([T((2,), torch.int32), T((2,), torch.float16), T((1,), torch.int64)],),
        name="promotion",
    ),
    OpRow(aten.cat.default, ([T((2,), torch.bool), T((2,), torch.bool)],), name="bool"),
    OpRow(aten.cat.default, ([T((2,), torch.bool), T((2,), torch.int64)],), name="bool_int64"),
    OpRow(aten.cat.default, ([T((0,)), T((2, 3))], 1), rejected="is empty", name="legacy_empty"),
    OpRow(aten.stack.default, ([T((2, 3)), T((2, 3)), T((2, 3))],), dynamic=True),
    OpRow(aten.stack.default, ([T((2, 3, 4)), T((2, 3, 4))], 1), dynamic=True, name="middle"),
    OpRow(aten.stack.default, ([T((2, 3)), T((2, 3))], -1), dynamic=True, name="last"),
    OpRow(aten.stack.default, ([T(()), T(())],), name="0d"),
    OpRow(aten.stack.default, ([T((2, 3))],), dynamic=True, name="one"),
    OpRow(aten.stack.default, ([T((2,), torch.int32), T((2,))],), name="promotion"),
]
