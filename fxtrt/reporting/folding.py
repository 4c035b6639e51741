"""Nests the nodes of a `Picture` in a box for each module, for the HTML page."""

from __future__ import annotations

from typing import Any

from .picture import Picture

__all__ = ["boxes"]

_MOST_CHILDREN = 40
"""The most nodes directly in one box. If a module has more, they are split into smaller boxes."""


def boxes(picture: Picture) -> dict[str, Any]:
    """Return the picture as the script of the page reads it.

    Returns:
        boxes: [label, parent, node] for each, parents first. The parent is the index of a box, or
            -1 at the top; the node is the index of a node, or -1 if the box holds others.
        nodes: [name, target, module, cluster, rejection] for each; -1 stands for None.
        edges: the same as in `Picture`.
        dropped: the same as in `Picture`.
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
