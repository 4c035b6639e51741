"""Keep composite operators that have a converter from being decomposed while tracing."""

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
"""Return whether tracing can keep a composite operator; cached, as a call takes 40 us."""


def registered_composites() -> list[OpOverload]:
    """Return the composite operators that have a converter and can be kept."""
    return [target for target in registered() if can_stay_whole(target)]


@contextmanager
def composites_whole() -> Iterator[None]:
    """Keep composite operators that have a converter from being decomposed in the block."""
    kept = dict.fromkeys(registered_composites(), _special_op_to_preserve_cia)
    # The overrides are Python kernels, which static tracing ignores without this dispatcher.
    with _override_composite_implicit_decomp(kept), enable_python_dispatcher():
        yield
