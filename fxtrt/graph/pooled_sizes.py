"""Keep torch 2.11 from guarding on the parity of sizes that are pooled."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch._meta_registrations

__all__ = ["pooled_sizes_without_guards"]


@contextmanager
def pooled_sizes_without_guards() -> Iterator[None]:
    """Let the shapes of pooled tensors be divisions that round down, while the block runs.

    torch 2.11 asks for the remainder first, in order to round down, which `//` already does. So a
    graph of an image with an even number of rows would not take one with an odd number.
    """
    with patch.object(torch._meta_registrations, "div_rtn", operator.floordiv):
        yield
