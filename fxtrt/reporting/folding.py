"""Nests the nodes of a picture in boxes of their modules, for the HTML page."""

from __future__ import annotations

from typing import Any

from .picture import Picture

__all__ = ["boxes"]

_MOST_CHILDREN = 40
"""A box with more nodes of its own than this gets a box for each run of so many."""


def boxes(picture: Picture) -> dict[str, Any]:
    """Return the picture as the script of the page reads it.

    Returns:
        boxes: [label, parent, node] for each, parents first; parent is the index of a box or -1,
            node that of a node or -1 for a module.
        nodes: [name, target, module, cluster, rejection] for each; -1 for None.
        edges: as the picture has them.
        dropped: as the picture has it.
    """
    found: list[tuple[str, int, int]] = []
    modules: dict[tuple[str, ...], int] = {}

    def module_box(path: tuple[str, ...]) -> int:
        if not path:
            return -1
        if path not in modules:
            parent = module_box(path[:-1])
            modules[path] = len(found)
            found.append((path[-1], parent, -1))
        return modules[path]

    own: dict[tuple[str, ...], list[int]] = {}
    for i, node in enumerate(picture.nodes):
        path = tuple(filter(None, node.module.split(".")))
        module_box(path)
        own.setdefault(path, []).append(i)
    for path, members in own.items():
        for start in range(0, len(members), _MOST_CHILDREN):
            run = members[start : start + _MOST_CHILDREN]
            parent = module_box(path)
            if len(members) > _MOST_CHILDREN:
                found.append((f"{start + 1} to {start + len(run)}", parent, -1))
                parent = len(found) - 1
            found += [(_short(picture.nodes[i].target), parent, i) for i in run]
    nodes = [
        (node.name, node.target, node.module, _index(node.cluster), _index(node.rejection))
        for node in picture.nodes
    ]
    return {"boxes": found, "nodes": nodes, "edges": picture.edges, "dropped": picture.dropped}


def _short(target: str) -> str:
    """Shorten `aten.relu.default` to "relu" and `torchvision.nms.default` to "nms"."""
    parts = target.split(".")
    return parts[1] if len(parts) == 3 else target


def _index(value: int | None) -> int:
    return -1 if value is None else value
