"""Put equivalents in the place of functions and methods while a model is captured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import torch

from ..errors import CaptureError
from .recipes import Equivalents, recipe_of

__all__ = ["place_of", "substituted", "with_equivalents"]

_LOCK = threading.RLock()


@contextmanager
def with_equivalents(model: torch.nn.Module) -> Iterator[None]:
    """Substitute the equivalents of the recipe of `model`, if it has one, while the block runs."""
    recipe = recipe_of(model)
    with substituted({} if recipe is None else recipe.equivalents):
        yield


@contextmanager
def substituted(equivalents: Equivalents) -> Iterator[None]:
    """Bind each name ("module.Class.method") to its equivalent while the block runs.

    One thread at a time does this. Other threads that call the originals meanwhile get the
    equivalents, which return the same numbers. `len` is a builtin and may be missing from the
    module that it is named in: it is added, and removed again.

    Raises:
        CaptureError: a name does not exist in this version of its package.
    """
    with _LOCK, ExitStack() as stack:
        for name, equivalent in equivalents.items():
            owner, attribute = place_of(name)
            stack.enter_context(patch.object(owner, attribute, equivalent, create=True))
        yield


def place_of(name: str) -> tuple[Any, str]:
    """Return the module or class that a function or method is looked up in, and its name there.

    Raises:
        CaptureError: the name does not exist; `len`, a builtin, may be missing.
    """
    path, _, attribute = name.rpartition(".")
    try:
        owner = resolve_name(path)
        if attribute != "len":
            getattr(owner, attribute)
    except (AttributeError, ImportError) as error:
        raise CaptureError(f"there is no {name} to replace: {error}") from error
    return owner, attribute
