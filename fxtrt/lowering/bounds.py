"""Gives upper bounds to dynamic sizes that have none, so that engines can allocate ahead."""

from __future__ import annotations

from torch.fx import GraphModule

from ..capture.size_ranges import bound_ranges
from ..passes.bound_selections import bound_selections
from ..settings import Settings

__all__ = ["bound_sizes"]


def bound_sizes(gm: GraphModule, settings: Settings) -> None:
    """Give upper bounds to the sizes of `gm` that have none.

    An input's size is bounded by `settings.max_growth` times its example, unless that is None. The
    number of elements that an operator selects is bounded by the number that it selects from.
    """
    if settings.max_growth is not None:
        bound_ranges(gm, settings.max_growth)
    bound_selections(gm)
