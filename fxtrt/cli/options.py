"""Turns options of the command line into sizes, shapes, and files that can be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..errors import SettingsError

__all__ = ["INPUT", "OUTPUT", "SHAPE", "SIZE", "InputShape", "writing"]

INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Output(click.Path):
    """A file to write. Its folder is checked at once, because the content takes a while to make."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.is_dir():
            self.fail(f"{str(value)!r} is no file", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {str(path.parent)!r}", param, ctx)
        if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
            self.fail(f"the folder {str(path.parent)!r} is not writable", param, ctx)
        return path


OUTPUT = _Output(dir_okay=False, writable=True, path_type=Path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk in the block into one that is printed in one line.

    Raises:
        SettingsError: the block could not write `path`.
    """
    try:
        yield
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error}") from error


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A height and width, as "800x1333"."""

    name = "HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        height, _, width = str(value).partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value!r} is no height and width, as 800x1333", param, ctx)
        return int(height), int(width)


SIZE = _Size()


@dataclass(frozen=True, slots=True)
class InputShape:
    """The shape of an input, and the name of its dtype."""

    sizes: tuple[int, ...]
    dtype: str = "float32"


class _Shape(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """The shape of an input, as "1x3x224x224" or "1x16:int64"."""

    name = "AxBxC[:DTYPE]"

    def convert(self, value: Any, param: Any, ctx: Any) -> InputShape:
        sizes, _, dtype = str(value).partition(":")
        numbers = sizes.split("x")
        if not all(number.isdecimal() for number in numbers):
            self.fail(f"{value!r} is no shape, as 1x3x224x224 or 1x16:int64", param, ctx)
        return InputShape(tuple(map(int, numbers)), dtype or "float32")


SHAPE = _Shape()
