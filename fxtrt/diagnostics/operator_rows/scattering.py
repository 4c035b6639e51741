"""Rows of converters/scattering.py."""

from __future__ import annotations

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((4, 5, 6))
MASK = T((4, 5), torch.bool)
ROW = T((1, 4), torch.int64, values=(3, 0, 4, 1))
FIRST = T((3,), torch.int64, values=(2, -4, 3))
KNOWN = T((3,), torch.int64, values=(2, -4, 3), weight=True)
TWICE = T((2,), torch.int64, values=(3, -1), weight=True)
SECOND = T((3,), torch.int64, values=(0, -1, 2))
COLUMN = T((2, 1), torch.int64, values=(-1, 0))

ROWS = [
    OpRow(aten.scatter.src, (T((2, 5)), 1, ROW, T((1, 4))), dynamic=True),
    OpRow(aten.scatter.src, (T((2, 5)), -1, ROW, T((2, 5))), dynamic=True, name="larger_src"),
    OpRow(
        aten.scatter.src,
        (T((2, 5), torch.int64), 1, ROW, T((1, 4), torch.int64)),
        name="int64",
    ),
    OpRow(
        aten.scatter.src,
        (T(()), 0, T((), torch.int64, values=(0,)), T(())),
        name="0d",
    ),
    OpRow(aten.scatter.value, (T((2, 5)), 1, ROW, 2.5), dynamic=True),
    OpRow(aten.scatter.value, (T((2, 5), torch.float16), 1, ROW, 1), name="fp16"),
    OpRow(aten.scatter.value, (T((2, 5), torch.int32), 1, ROW, 7), name="int32"),
    OpRow(aten.scatter.value, (T((2, 5), torch.bool), 1, ROW, True), name="bool"),
    OpRow(aten.index_put.default, (X, [FIRST], T((3, 5, 6))), dynamic=True),
    OpRow(aten.index_put.default, (X, [FIRST], T(())), dynamic=True, name="0d_values"),
    OpRow(aten.index_put.default, (X, [FIRST, SECOND], T((3, 6))), dynamic=True, name="two"),
    OpRow(
        aten.index_put.default,
        (X, [None, FIRST, SECOND], T((4, 3))),
        dynamic=True,
        name="two_adjacent_last",
    ),
    OpRow(
        aten.index_put.default,
        (X, [FIRST, None, SECOND], T((3, 5))),
        dynamic=True,
        name="two_apart",
    ),
    OpRow(aten.index_put.default, (X, [COLUMN, FIRST], T((3, 6))), dynamic=True, name="broadcast"),
    OpRow(aten.index_put.default, (X, [None, FIRST], T((3, 1))), dynamic=True, name="after_none"),
    OpRow(aten.index_put.default, (X, [KNOWN], T((3, 5, 6)), True), name="accumulate"),
    OpRow(aten.index_put.default, (X, [None, KNOWN], T((3, 6)), True), name="accumulate_second"),
    OpRow(
        aten.index_put.default,
        (T((4, 5), torch.int64), [KNOWN, KNOWN], T((), torch.int64), True),
        name="accumulate_int64",
    ),
    OpRow(aten.index_put.default, (X, [MASK], T(()), True), dynamic=True, name="accumulate_mask"),
    OpRow(
        aten.index_put.default,
        (X, [FIRST], T((5, 6)), True),
        name="accumulate_input",
        rejected="where an index comes twice",
    ),
    OpRow(
        aten.index_put.default,
        (X, [TWICE], T((5, 6)), True),
        name="accumulate_twice",
        rejected="and an index comes twice",
    ),
    OpRow(
        aten.index_put.default,
        (X, [KNOWN], T((3, 5, 6)), True),
        dynamic=True,
        name="accumulate_dynamic",
        rejected="a dynamic size",
    ),
    OpRow(
        aten.index_put.default,
        (T((4,), torch.bool), [KNOWN], T((3,), torch.bool), True),
        name="accumulate_bool",
        rejected="of bools",
    ),
    OpRow(aten.index_put.default, (X, [MASK], T(())), dynamic=True, name="mask"),
    OpRow(
        aten.index_put.default, (X, [None, T((5,), torch.bool)], T((1,))), name="mask_after_none"
    ),
    OpRow(aten.index_put.default, (X, [None, T((5, 6), torch.bool)], T((1, 1))), name="mask_last"),
    OpRow(
        aten.index_put.default,
        (T((4,), torch.int64), [T((4,), torch.bool)], T((), torch.int64)),
        dynamic=True,
        name="mask_int64",
    ),
    OpRow(
        aten.index_put.default,
        (X, [T((4,), torch.bool, values=(True, False, True, False))], T((2, 5, 6))),
        name="mask_of_values",
        rejected="bool mask depends on data",
    ),
]
