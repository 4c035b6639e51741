"""Puts equivalents in the place of functions and methods while a model is captured."""

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
    """While the block runs, `model` can be captured whole if its architecture has a plan."""
    plan = recipe_of(model)
    with substituted({} if plan is None else plan.equivalents):
        yield


@contextmanager
def substituted(equivalents: Equivalents) -> Iterator[None]:
    """While the block runs, each name ("module.Class.method") is its equivalent.

    One thread at a time; others that call the originals meanwhile get the equivalents, which give
    the same numbers. A name that its module does not have (`len`) is added, and removed again.

    Raises:
        CaptureError: a name does not exist, in this version of its package.
    """
    with _LOCK, ExitStack() as stack:
        for name, equivalent in equivalents.items():
            owner, attribute = place_of(name)
            stack.enter_context(patch.object(owner, attribute, equivalent, create=True))
        yield


def place_of(name: str) -> tuple[Any, str]:
    """The module or class that a function or method is looked up in, and its name there.

    Raises:
        CaptureError: there is none of that name; `len`, a builtin, may be missing.
    """
    path, _, attribute = name.rpartition(".")
    try:
        owner = resolve_name(path)
        if attribute != "len":
            getattr(owner, attribute)
    except (AttributeError, ImportError) as error:
        raise CaptureError(f"there is no {name} to replace: {error}") from error
    return owner, attribute
