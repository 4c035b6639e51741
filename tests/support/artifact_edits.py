"""Makes other files of a file of `fxtrt.save`, whole and with true digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fxtrt.artifact.archive import ArtifactFile, write_artifact

__all__ = ["Edited", "rewrite", "write"]

ALONE = ("weights.safetensors", "golden.constants", "report.json")
"""The members of a file that serves alone, besides graphs and plans."""


class Edited:
    """What is in a file, to be changed: JSON, and bytes by their names."""

    def __init__(self, path: Path) -> None:
        with ArtifactFile(path) as file:
            self.manifest: Any = file.manifest
            names = [f"graphs/{number}" for number in range(len(self.manifest["parts"]))]
            self.graphs: list[Any] = [json.loads(file.read(f"{name}.json")) for name in names]
            self.constants = [file.read(f"{name}.constants") for name in names]
            others = ALONE if self.manifest["alone"] is not None else ()
            self.members = {name: file.read(name) for name in others}

    @property
    def graph(self) -> Any:
        """The first one."""
        return self.graphs[0]


def write(path: Path, edited: Edited) -> None:
    """Write it to `path`."""
    contents: list[tuple[str, bytes]] = []
    for number, (graph, constants) in enumerate(zip(edited.graphs, edited.constants, strict=True)):
        contents.append((f"graphs/{number}.json", json.dumps(graph).encode()))
        contents.append((f"graphs/{number}.constants", constants))
    write_artifact(path, edited.manifest, [*contents, *edited.members.items()])


def rewrite(path: Path, change: Callable[[Edited], Any]) -> None:
    """Change a file in place."""
    edited = Edited(path)
    change(edited)
    write(path, edited)
