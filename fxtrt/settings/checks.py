"""Check the values of settings, each with an error that says what would be right."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..errors import SettingsError

__all__ = ["folder", "nearest", "require_choice", "require_int", "require_seconds", "strings"]

_MOST_SECONDS = 30 * 24 * 3600
"""The longest timeout that locks accept on all systems."""
_SHORT_NAMES = {
    "qint8": "int8",
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
}


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise SettingsError(
            f"{name} must be one of {', '.join(choices)}, not {value!r}"
            f"{nearest(_SHORT_NAMES.get(str(value), str(value)), choices)}"
        )


def require_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def require_seconds(name: str, value: object) -> None:
    # The comparison also refuses nan and infinity, which locks do not accept.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= _MOST_SECONDS:  # type: ignore[operator]  # a number
        raise SettingsError(
            f"{name} must be a number of seconds above 0 and at most {_MOST_SECONDS}, not {value!r}"
        )


def folder(name: str, value: object) -> Path:
    """Return an absolute path, which stays the same when the process changes its folder."""
    if not isinstance(value, (str, os.PathLike)):
        raise SettingsError(f"{name} must be a path or None, not {value!r}")
    try:
        text = os.fspath(value)
        if not isinstance(text, str) or not text or b"\0" in os.fsencode(text):
            raise ValueError("a path is a string that is not empty and has no null character")
        return Path(text).expanduser().absolute()
    except (
        ValueError,
        RuntimeError,
        OSError,
    ) as error:  # there is no such user, or no current folder
        raise SettingsError(f"{name} cannot be {value!r}: {error}") from error


def strings(name: str, value: object) -> tuple[str, ...] | None:
    if value is None and name == "tactic_sources":
        return None
    if isinstance(value, str) or not isinstance(value, (tuple, list, set, frozenset)):
        raise SettingsError(f"{name} must be a sequence of strings, not {value!r}")
    if wrong := [entry for entry in value if not isinstance(entry, str)]:
        raise SettingsError(f"{name} must hold strings only, not {wrong[0]!r}")
    # The order of a set differs between processes.
    return tuple(sorted(value) if isinstance(value, (set, frozenset)) else value)


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f": did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
