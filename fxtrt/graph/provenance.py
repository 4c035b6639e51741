"""Find where in the user's model a node comes from: its source line and its module path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

from torch.fx import GraphModule, Node

__all__ = [
    "IN_GRAPH",
    "as_graph",
    "last_frame",
    "line_text",
    "module_path",
    "set_module_prefix",
    "shared_path",
    "source_line",
]

_RESUMED = re.compile(r"^torch_dynamo_resume_in_(?P<function>.+)_at_\d+$")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')


def source_line(node: Node) -> str | None:
    """Return the innermost frame of the user's code that made `node`: "model.py:12 in forward"."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    if not frames:
        return None
    last = frames[-1]
    return line_text(last["file"], int(last["line"]), last["function"])


def last_frame(node: Node) -> str:
    """Return the frame of `source_line` as a line of a stack trace, without folders; or ""."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    if not frames:
        return ""
    last = frames[-1]
    file = last["file"].rsplit("/", 1)[-1]
    return f'File "{file}", line {last["line"]}, in {last["function"]}'


def line_text(file: str, line: int, function: str) -> str:
    """Return a line of the user's code as "model.py:12 in forward".

    A function that Dynamo made to resume after a graph break has the name of the user's function.
    """
    while resumed := _RESUMED.match(function):
        function = resumed["function"]
    return f"{file.rsplit('/', 1)[-1]}:{line} in {function}"


def module_path(node: Node) -> str:
    """Return the path of the innermost module that made `node` ("backbone.body.conv1"), or ""."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path, _ = list(stack.values())[-1]
    return _plain(path)


def shared_path(paths: Iterable[str]) -> str:
    """Return the longest path that all `paths` lie under, or their top modules if there is none."""
    split = [path.split(".") for path in paths if path]
    common: list[str] = []
    for names in zip(*split, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return ".".join(common) or ", ".join(dict.fromkeys(path[0] for path in split))


def set_module_prefix(gm: GraphModule, prefix: str) -> None:
    """Put `prefix` before the module paths of a graph that was captured from a part of a model."""
    if not prefix:
        return
    for node in gm.graph.nodes:
        if stack := node.meta.get("nn_module_stack"):
            node.meta["nn_module_stack"] = {
                key: (".".join(filter(None, (prefix, _plain(path)))), owner)
                for key, (path, owner) in stack.items()
            }


def _plain(path: str) -> str:
    """Turn Dynamo's L['self'].a._modules['b'], or L['self'].a.b from torch.export, into a.b."""
    path = re.sub(r"^L\['\w+'\]\.?", "", path)
    path = re.sub(r"(_modules)?\['?(\w+)'?\]", r".\2", path)
    return ".".join(part for part in path.replace("..", ".").split(".") if part)


def as_graph(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `run` in a function whose frame tells `OutsideCalls` that a graph makes the calls."""

    def in_graph(*args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs)

    return in_graph


IN_GRAPH: CodeType = as_graph(len).__code__
"""The code of the function that `as_graph` returns, by which its frames are recognised."""
