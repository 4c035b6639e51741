"""Rows of converters/einsum.py."""

from __future__ import annotations

import torch

from .row import OpRow, T

aten = torch.ops.aten
einsum = aten.einsum.default

A = T((2, 3))
B = T((3, 4))
I64 = torch.int64

ROWS = [
    OpRow(einsum, ("ij,jk->ik", [A, B]), dynamic=True),
    OpRow(einsum, ("bqc,bchw->bqhw", [T((2, 3, 4)), T((2, 4, 5, 6))]), dynamic=True, name="masks"),
    OpRow(einsum, ("kj,ik", [B, A]), name="implicit"),
    OpRow(einsum, ("nC, CK -> Kn", [A, B]), name="capitals"),
    OpRow(einsum, ("i,j->ij", [T((3,)), T((4,))]), name="outer"),
    OpRow(einsum, ("ij->j", [A]), name="one-operand"),
    OpRow(einsum, ("ii->i", [T((3, 3))]), name="diagonal", rejected="'ii'"),
    OpRow(einsum, ("...ij,jk->...ik", [T((5, 2, 3)), B]), dynamic=True, name="ellipsis"),
    OpRow(einsum, ("...ij,...jk", [T((5, 2, 3)), T((5, 3, 4))]), name="ellipsis-implicit"),
    OpRow(einsum, ("...i,...i->...", [T((5, 6, 2)), T((6, 2))]), name="ellipsis-right"),
    OpRow(einsum, ("...j,jK->K...", [T((5, 2, 3)), B]), name="ellipsis-last"),
    OpRow(einsum, ("i...,jk", [T((2,)), B]), name="ellipsis-of-nothing"),
    OpRow(
        einsum,
        ("...ij,...jk", [T((5, 2, 3)), T((1, 3, 4))]),
        name="ellipsis-broadcast",
        rejected="broadcasts nothing",
    ),
    OpRow(einsum, ("ij,jk,kl->il", [A, B, T((4, 5))]), name="three", rejected="3 operands"),
    OpRow(einsum, ("ij,ij->i", [A, T((1, 3))]), name="broadcast", rejected="'i' is 2 and 1"),
    OpRow(einsum, ("ij,jk->ik", [T((2, 3), I64), T((3, 4), I64)]), name="i", rejected="int64"),
]
