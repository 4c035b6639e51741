"""Turns untrusted JSON into values of a declared type, or refuses it."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from ..errors import ArtifactError

__all__ = ["parse", "typed"]

T = TypeVar("T")
_UNIONS = (typing.Union, types.UnionType)
_MOST_BITS = 64
"""The most bits of an integer: torch has no larger ones."""
_BREAKS = {ord(character): None for character in "\n\t"}


def parse(data: bytes, what: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ArtifactError: the text is no JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{what} is no JSON: {error}") from error


def typed(data: Any, form: type[T], what: str) -> T:
    """Return `data` as a value of the type `form`; tuples and dataclasses are made from JSON's.

    Args:
        form: a type made of None, bool, int, float, str, Any, list, dict with string keys, tuple,
            `X | Y`, Literal, TypedDict and dataclasses. The last two must have all keys without a
            default, and no unknown ones.
        what: the name of `data` in errors.

    Raises:
        ArtifactError: the data is of another type; the message says where.
    """
    return typing.cast(T, _read(data, form, what))


def _read(data: Any, form: Any, what: str) -> Any:
    origin, args = typing.get_origin(form), typing.get_args(form)
    if form is Any:
        return data
    if origin is list and type(data) is list:
        return [_read(item, args[0], f"{what}[{i}]") for i, item in enumerate(data)]
    if origin is tuple and type(data) is list:
        return _tuple(data, args, what)
    if _is_named_tuple(form) and type(data) is list:
        return form(*_tuple(data, tuple(typing.get_type_hints(form).values()), what))
    if origin is dict and type(data) is dict:
        return {key: _read(item, args[1], f"{what}[{key!r:.40}]") for key, item in data.items()}
    if origin in _UNIONS:
        return _first(data, args, what)
    if origin is typing.Literal and type(data) in (str, int) and data in args:
        return data
    if typing.is_typeddict(form) and type(data) is dict:
        return _record(data, form, what)
    if dataclasses.is_dataclass(form) and type(data) is dict:
        return form(**_record(data, form, what))  # type: ignore[operator]  # a class
    if form is float and type(data) is int and data.bit_length() <= _MOST_BITS:
        return float(data)
    if origin is None and type(data) is (type(None) if form is None else form):
        if type(data) is int and data.bit_length() > _MOST_BITS:
            raise ArtifactError(f"{what} is an integer of {data.bit_length()} bits")
        if type(data) is str and not data.translate(_BREAKS).isprintable():
            raise ArtifactError(f"{what} has characters that cannot be printed: {data!r:.80}")
        return data
    name = getattr(form, "__name__", None) if origin is None else str(form)
    raise ArtifactError(f"{what} is {data!r:.80}, not {name}")


def _is_named_tuple(form: Any) -> bool:
    return isinstance(form, type) and issubclass(form, tuple) and hasattr(form, "_fields")


def _tuple(data: list[Any], args: Sequence[Any], what: str) -> tuple[Any, ...]:
    if args[-1] is ...:
        args = (args[0],) * len(data)
    if len(data) != len(args):
        raise ArtifactError(f"{what} has {len(data)} items, not {len(args)}")
    pairs = zip(data, args, strict=True)
    return tuple(_read(item, arg, f"{what}[{i}]") for i, (item, arg) in enumerate(pairs))


def _first(data: Any, forms: Sequence[Any], what: str) -> Any:
    """Return `data` as a value of the first of `forms` that it fits."""
    for form in forms[:-1]:
        try:
            return _read(data, form, what)
        except ArtifactError:
            continue
    return _read(data, forms[-1], what)


def _record(data: dict[str, Any], form: Any, what: str) -> dict[str, Any]:
    hints, required = _fields(form)
    if missing := required - data.keys():
        raise ArtifactError(f"{what} has no {min(missing)!r}")
    if unknown := data.keys() - hints.keys():
        raise ArtifactError(f"{what} has {min(unknown)!r:.80}, which is not known")
    return {key: _read(item, hints[key], f"{what}.{key}") for key, item in data.items()}


@cache
def _fields(form: Any) -> tuple[dict[str, Any], set[str]]:
    """Return the type of each key, and the keys that are required."""
    hints = typing.get_type_hints(form)
    if typing.is_typeddict(form):
        return hints, set(form.__required_keys__)
    none = dataclasses.MISSING
    return hints, {
        field.name
        for field in dataclasses.fields(form)
        if field.default is none and field.default_factory is none
    }
