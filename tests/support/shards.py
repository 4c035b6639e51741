"""A plugin of pytest: which tests `--dist=loadgroup` keeps together in one worker.

The tests of a file stay together, since they share what its fixtures and caches hold. The largest
files are divided by families of operators, so that no worker is left alone with one of them. Files
with a test that is marked as slow begin first, and small ones fill up the end.

xdist's own groups are no help: its version 3.8 changes an attribute of items that pytest 9 ignores.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from fxtrt.registry import registered

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

__all__ = ["DATABASE_SHARDS", "database_shard", "group_of"]

DIVIDED = (
    "tests/converters/test_half_accuracy.py",
    "tests/converters/test_mutants.py",
    "tests/converters/test_operators.py",
)
DATABASE = "tests/converters/test_opdb.py"
DATABASE_SHARDS = ("a-c", "d-l", "m-r", "s-z", "namespaces", "nn")

_PARAMETERS = re.compile(r"\[(.*)\]", re.DOTALL)
_TARGET = re.compile(r"\w+(?:\.\w+)+")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # by their number of tests: some take a minute each
    return ByGroup(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def group_of(nodeid: str) -> str:
    """The file of a test, and behind it the family where the file is divided."""
    path, _, test = nodeid.partition("::")
    found = _PARAMETERS.search(test)
    if found is None:
        return path
    if path == DATABASE:
        name = found[1]
        return f"{path}:{name if name in DATABASE_SHARDS else database_shard(name)}"
    if path in DIVIDED:
        families = (_families().get(name) for name in _TARGET.findall(found[1]))
        return f"{path}:{next(filter(None, families), 'others')}"
    return path


@cache
def _families() -> dict[str, str]:
    """The file in converters/ of each operator, by its name with and without "aten."."""
    found = {}
    for target, converter in registered().items():
        family = converter.build.__module__.rpartition(".")[2]
        found[str(target)] = found[str(target).removeprefix("aten.")] = family
    return found


def database_shard(name: str) -> str:
    """Return the shard of an operator in PyTorch's database.

    It is the operator's namespace, or the letters that the name begins with.
    """
    namespace, dot, _ = name.partition(".")
    if dot:
        return "nn" if namespace == "nn" else "namespaces"
    letter = name.lstrip("_")[0].lower()
    return next(letters for letters in DATABASE_SHARDS if letter <= letters[2])
