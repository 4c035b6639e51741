"""Turns options of the command line into sizes, shapes, and files that can be written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..errors import SettingsError

__all__ = [
    "ARTIFACT",
    "INPUT",
    "OUTPUT",
    "SECONDS",
    "SHAPE",
    "SHARE",
    "SIZE",
    "InputShape",
    "writing",
]

_MOST_DIGITS = 9
"""The largest size: no memory holds more."""

INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Output(click.Path):
    """A file to write. Its folder is checked at once, because the content takes a while to make."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            reason = self._why_not(Path(os.path.realpath(path)))
        except OSError as error:  # as of a name that is too long
            reason = f"{str(value)!r} cannot be written: {error.strerror}"
        if reason is not None:
            self.fail(reason, param, ctx)
        return path

    def _why_not(self, path: Path) -> str | None:
        """Return why a file cannot be written, or None; `path` has no links left to follow."""
        folder = path.parent
        if path.is_dir() or path.is_symlink():  # a link to itself
            return f"{str(path)!r} is no file"
        if not folder.is_dir():
            return f"there is no folder {str(folder)!r}"
        if self._needs_folder(path) and not os.access(folder, os.W_OK | os.X_OK):
            return f"the folder {str(folder)!r} is not writable"
        return None

    def _needs_folder(self, path: Path) -> bool:
        """Return whether writing makes a new file in the folder."""
        return not path.exists()


class _Artifact(_Output):
    """A file that is written under a temporary name in its folder, and then moved."""

    def _why_not(self, path: Path) -> str | None:
        if path.exists() and not path.is_file():
            return f"{str(path)!r} is no regular file"
        return super()._why_not(path)

    def _needs_folder(self, path: Path) -> bool:
        return True


OUTPUT = _Output(dir_okay=False, writable=True, path_type=Path)
ARTIFACT = _Artifact(dir_okay=False, writable=True, path_type=Path)


class _Share(click.FloatRange):
    """A number in a range. It refuses "nan", which `FloatRange` accepts."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        share = float(super().convert(value, param, ctx))
        if math.isnan(share):
            self.fail(f"{value!r} is no number", param, ctx)
        return share


SHARE = _Share(0, 1)


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A time in seconds, as "0.05", "50ms" or "2s"."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number, factor = str(value).strip(), 1.0
        for unit, size in (("ms", 1e-3), ("s", 1.0)):
            if number.endswith(unit):
                number, factor = number.removesuffix(unit), size
                break
        try:
            seconds = float(number) * factor
        except ValueError:
            seconds = math.nan
        if not 0.0 <= seconds < math.inf:
            self.fail(f"{value!r} is no time, as 50ms or 2s", param, ctx)
        return seconds


SECONDS = _Seconds()


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


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A height and width, as "800x1333"."""

    name = "HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        height, _, width = str(value).partition("x")
        if not (_is_number(height) and _is_number(width) and int(height) and int(width)):
            self.fail(f"{value!r} is no height and width, as 800x1333", param, ctx)
        return int(height), int(width)


SIZE = _Size()


@dataclass(frozen=True, slots=True)
class InputShape:
    """The shape of an input, and the name of its dtype."""

    sizes: tuple[int, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        """Return the shape as it is written on the command line."""
        return f"{'x'.join(map(str, self.sizes))}:{self.dtype}"


class _Shape(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """The shape of an input, as "1x3x224x224" or "1x16:int64"."""

    name = "AxBxC[:DTYPE]"

    def convert(self, value: Any, param: Any, ctx: Any) -> InputShape:
        sizes, _, dtype = str(value).partition(":")
        numbers = sizes.split("x")
        if not all(map(_is_number, numbers)):
            self.fail(f"{value!r} is no shape, as 1x3x224x224 or 1x16:int64", param, ctx)
        return InputShape(tuple(map(int, numbers)), dtype or "float32")


SHAPE = _Shape()
