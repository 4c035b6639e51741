"""Whitelist and blacklist: patterns that name nodes by operator, overload, node name or module.

The parts of an operator that was taken apart go by its names too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch._ops import OpOverload
from torch.fx import Node

from ..errors import SettingsError
from .metadata import PARTS_OF
from .provenance import module_path

__all__ = ["Patterns", "require_matches", "unmatched"]


class Patterns:
    """The entries of one list."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        self._entries = entries

    def match(self, node: Node) -> str | None:
        """The first entry that names `node`, or None."""
        if not self._entries:
            return None
        names = _names(node)
        for entry in self._entries:
            if any(fnmatchcase(name, entry) for name in names):
                return entry
        return None


def require_matches(entries: tuple[str, ...], nodes: Iterable[Node]) -> None:
    """Refuse an entry that names none of `nodes`: it is a slip of the pen.

    Raises:
        SettingsError: with the nearest name that exists.
    """
    for complaint in unmatched(entries, nodes):
        raise SettingsError(complaint)


def unmatched(entries: tuple[str, ...], nodes: Iterable[Node]) -> list[str]:
    """A sentence for each entry that names none of `nodes`, with the nearest name that exists."""
    known = {name for node in nodes for name in _names(node)} if entries else set()
    complaints = []
    for entry in entries:
        if not any(fnmatchcase(name, entry) for name in known):
            nearest = difflib.get_close_matches(entry, sorted(known), n=1, cutoff=0.3)
            hint = f": did you mean {nearest[0]!r}?" if nearest else ""
            complaints.append(f"the list entry {entry!r} matches no node{hint}")
    return complaints


def _names(node: Node) -> list[str]:
    wholes = list(node.meta.get(PARTS_OF, ()))
    if isinstance(node.target, OpOverload):
        wholes.append((node.name, str(node.target)))
    names = [node.name]
    for name, overload in wholes:
        names += [name, overload, overload.rpartition(".")[0]]
    if path := module_path(node):
        parts = path.split(".")
        names += [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return names
