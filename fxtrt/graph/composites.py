"""Keep composite operators that have a converter whole while tracing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from torch._dispatch.python import enable_python_dispatcher
from torch._export.utils import _is_preservable_cia_op, _special_op_to_preserve_cia
from torch._ops import OpOverload
from torch.export.exported_program import _override_composite_implicit_decomp

from ..registry import registered

__all__ = ["can_stay_whole", "composites_whole", "registered_composites"]


can_stay_whole = cache(_is_preservable_cia_op)
"""Whether tracing can keep a composite operator; to ask takes 40 microseconds."""


def registered_composites() -> list[OpOverload]:
    return [target for target in registered() if can_stay_whole(target)]


@contextmanager
def composites_whole() -> Iterator[None]:
    """Keep composite operators that have a converter whole while tracing."""
    kept = dict.fromkeys(registered_composites(), _special_op_to_preserve_cia)
    # The overrides are Python kernels, which static tracing does not look at by itself.
    with _override_composite_implicit_decomp(kept), enable_python_dispatcher():
        yield
