"""Match nodes against the whitelist's and blacklist's patterns, by operator, node name or module.

The parts of a decomposed operator also match the names of the operator itself. A node's name alone
may also be that of a module, or of a whole operator; "module.path:name" matches that node only.
"""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch._ops import OpOverload
from torch.fx import Node

from ..errors import SettingsError
from .metadata import PARTS_OF
from .provenance import module_path

__all__ = ["Patterns", "exact_pattern", "require_matches", "unmatched"]


class Patterns:
    """The entries of a whitelist or blacklist."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        self._entries = entries

    def match(self, node: Node) -> str | None:
        """Return the first entry that matches `node`, or None."""
        if not self._entries:
            return None
        names = _names(node)
        for entry in self._entries:
            if any(fnmatchcase(name, entry) for name in names):
                return entry
        return None


def exact_pattern(node: Node) -> str:
    """Return the pattern that matches `node` and no other node of its graph."""
    return glob.escape(_exact_name(node))


def require_matches(entries: tuple[str, ...], nodes: Iterable[Node]) -> None:
    """Refuse an entry that matches none of `nodes`, because it is probably misspelt.

    Raises:
        SettingsError: an entry matches nothing; the message has the nearest name that exists.
    """
    for complaint in unmatched(entries, nodes):
        raise SettingsError(complaint)


def unmatched(entries: tuple[str, ...], nodes: Iterable[Node]) -> list[str]:
    """Return a sentence for each entry that matches no node, with the nearest name that exists."""
    known = {name for node in nodes for name in _names(node)} if entries else set()
    complaints = []
    for entry in entries:
        if not any(fnmatchcase(name, entry) for name in known):
            nearest = difflib.get_close_matches(entry, sorted(known), n=1, cutoff=0.3)
            hint = f": did you mean {nearest[0]!r}?" if nearest else ""
            complaints.append(f"the list entry {entry!r} matches no node{hint}")
    return complaints


def _exact_name(node: Node) -> str:
    return f"{module_path(node)}:{node.name}"


def _names(node: Node) -> list[str]:
    wholes = list(node.meta.get(PARTS_OF, ()))
    if isinstance(node.target, OpOverload):
        wholes.append((node.name, str(node.target)))
    names = [node.name, _exact_name(node)]
    for name, overload in wholes:
        names += [name, overload, overload.rpartition(".")[0]]
    if path := module_path(node):
        parts = path.split(".")
        names += [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return names
