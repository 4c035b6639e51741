"""Flattening by an example's form gives what torch's pytree gives, or None."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from fxtrt.runtime.nesting import Nesting

A, B = torch.randn(2), torch.randn(2)
Pair = namedtuple("Pair", "a b")  # a pytree as it comes
VALUES: list[Any] = [
    A,
    None,
    [],
    (),
    {},
    (A, B),
    [A, B],
    {"a": A, "b": B},
    {"b": B, "a": A},
    OrderedDict(a=A, b=B),
    Pair(A, B),
    ((A, 2), {"b": [B, {"c": None}]}),
    ((A, 2), {"b": [B, {"c": None}, A]}),
    ([A], [[B]]),
    (A, ()),
    ([A, B], ()),
    (A, Pair(A, [B])),
]


@pytest.mark.parametrize("example", VALUES)
def test_it_gives_what_the_pytree_gives(example: Any) -> None:
    nesting = Nesting(example)
    tree = pytree.tree_structure(example)
    for value in VALUES:
        leaves, other = pytree.tree_flatten(value)
        found = nesting.flatten(value)
        if other == tree:
            assert found is not None
            assert list(map(id, found)) == list(map(id, leaves))
        elif found is not None:
            assert not all(map(pytree.tree_is_leaf, found)), "a container at the place of a leaf"
