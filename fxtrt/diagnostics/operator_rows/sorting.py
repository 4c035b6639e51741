"""Rows of converters/sorting.py."""

from __future__ import annotations

import torch

from .row import OpRow, T, V

aten = torch.ops.aten
F16, I32, I64, BOOL = torch.float16, torch.int32, torch.int64, torch.bool

X = T((2, 3, 7))
ROW = T((9,))
LONG = T((1, 4000))
COUNTS = V(5, -3, 8, 0, 2**40, dtype=I64)
VALUES_OF = {
    "max": lambda x: aten.max.dim(x, 1)[0],
    "min": lambda x: aten.min.dim(x, 1)[0],
    "topk": lambda x: aten.topk.default(x, 2)[0],
    "sort": lambda x: aten.sort.stable(x, stable=True)[0],
}

_ARGS = (aten.argmax.default, aten.argmin.default)
_EXTREMES = (aten.max.dim, aten.min.dim)

ROWS = [
    OpRow(aten.topk.default, (X, 3), dynamic=True),
    OpRow(aten.topk.default, (X, 2, 1, False, False), dynamic=True, name="smallest-of-dim"),
    OpRow(aten.topk.default, (X, 3, -2), name="whole-dim"),
    OpRow(aten.topk.default, (ROW, 4), dynamic=True, name="1d"),
    OpRow(aten.topk.default, (COUNTS, 3), name="int64"),
    OpRow(aten.topk.default, (T((2, 5), F16), 2), name="float16"),
    OpRow(aten.topk.default, (T((2, 5), F16),), call=VALUES_OF["topk"], name="values"),
    OpRow(aten.topk.default, (LONG, 3840), name="most", float16=False),
    OpRow(aten.topk.default, (LONG, 3841), name="too-many", rejected="k=3841"),
    OpRow(aten.topk.default, (T(()), 1), name="0d", rejected="0-d"),
    OpRow(aten.sort.default, (X,)),
    OpRow(aten.sort.default, (X, 0, True), name="descending"),
    OpRow(aten.sort.default, (ROW,), name="1d"),
    OpRow(aten.sort.default, (LONG,), name="long", rejected="4000 elements"),
    OpRow(aten.sort.default, (T((4,), BOOL),), name="bool", rejected="bools"),
    OpRow(aten.sort.stable, (X,), {"stable": False, "dim": 1}),
    OpRow(aten.sort.stable, (X,), call=VALUES_OF["sort"], name="values"),
    OpRow(aten.sort.stable, (X,), {"stable": True}, name="x", rejected="stable=True"),
    OpRow(aten.argsort.default, (X, 1, True)),
    OpRow(aten.argsort.default, (ROW,), name="1d"),
    OpRow(aten.argsort.stable, (X,), {"stable": False}),
    OpRow(aten.argsort.stable, (X,), {"stable": True}, name="x", rejected="stable=True"),
    *(OpRow(target, (X, -1), dynamic=True) for target in _ARGS),
    *(OpRow(target, (X, 1, True), dynamic=True, name="keepdim") for target in _ARGS),
    *(OpRow(target, (X,), dynamic=True, name="all") for target in _ARGS),
    *(OpRow(target, (X, None, True), name="all-keepdim") for target in _ARGS),
    *(OpRow(target, (ROW, 0), dynamic=True, name="1d") for target in _ARGS),
    *(OpRow(target, (COUNTS, 0), name="int64") for target in _ARGS),
    *(OpRow(target, (T(()),), name="0d", rejected="0-d") for target in _ARGS),
    *(OpRow(target, (X, 1), dynamic=True) for target in _EXTREMES),
    *(OpRow(target, (X, -1, True), dynamic=True, name="keepdim") for target in _EXTREMES),
    *(OpRow(target, (ROW, 0), dynamic=True, name="1d") for target in _EXTREMES),
    OpRow(aten.max.dim, (X,), call=VALUES_OF["max"], dynamic=True, name="values"),
    OpRow(aten.min.dim, (T((2, 3), I32),), call=VALUES_OF["min"], name="values"),
    OpRow(aten.max.dim, (T((4,), BOOL), 0), name="bool", rejected="bools"),
]
