"""Turns the arguments and fake values of nodes into plain data, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.fx import Node

from ..errors import ArtifactError
from .symbol_data import SymbolReader, SymbolWriter
from .typed_json import typed

__all__ = ["ArgumentReader", "MetaReader", "ValueWriter", "read_device", "read_dtype"]

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_OF_TORCH = (torch.dtype, torch.layout, torch.memory_format)
"""The types whose values are attributes of the torch module."""
_DEVICES = ("cpu", "cuda", "xpu", "mps", "meta")


class ValueWriter:
    """Writes values: those that JSON has unchanged, and all others as {kind: content}."""

    def __init__(self) -> None:
        self.symbols = SymbolWriter()

    def value(self, value: Any) -> Any:
        """Return a value as plain data.

        Raises:
            ArtifactError: the value is of a type that no artifact can hold.
        """
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if isinstance(value, Node):
            return {"node": value.name}
        if isinstance(value, FakeTensor):
            return {"tensor": self._tensor(value)}
        if isinstance(value, _SYMBOLIC):
            return {"symbolic": self.symbols.size(value)}
        if isinstance(value, _OF_TORCH):
            return {"torch": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"device": str(value)}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is slice:
            return {"slice": [self.value(part) for part in (value.start, value.stop, value.step)]}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, tuple) and (
            kind in (tuple, torch.Size) or not hasattr(value, "_fields")
        ):
            return {"tuple": [self.value(item) for item in value]}
        if isinstance(value, dict) and all(type(key) is str for key in value):
            return {"dict": {key: self.value(item) for key, item in value.items()}}
        raise ArtifactError(f"it has a {kind.__module__}.{kind.__qualname__}: {value!r:.80}")

    def _tensor(self, fake: FakeTensor) -> list[Any]:
        if fake.layout != torch.strided or fake.is_conj() or fake.is_neg() or fake.is_quantized:
            raise ArtifactError(f"it has a tensor that is not an ordinary dense one: {fake}")
        sizes = [self.value(size) for size in (*fake.shape, *fake.stride(), fake.storage_offset())]
        return [str(fake.dtype).removeprefix("torch."), str(fake.device), fake.dim(), sizes]


class _Reader:
    """Reads the kinds of values that may occur in arguments and in fake values alike."""

    def __init__(self) -> None:
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "torch": _torch,
            "device": read_device,
            "complex": _complex,
            "slice": lambda parts: slice(*self._three(parts)),
            "tuple": lambda items: tuple(self.value(typed(items, list[Any], "a tuple"))),
            "dict": self._dict,
        }

    def value(self, data: Any) -> Any:
        """Return the value of plain data.

        Raises:
            ArtifactError: the data is not what `ValueWriter` writes.
        """
        if isinstance(data, list):
            return [self.value(item) for item in data]
        if not isinstance(data, dict):
            return typed(data, _PLAIN, "a value")
        if len(data) != 1:
            raise ArtifactError(f"a value is of {len(data)} kinds")
        ((kind, content),) = data.items()
        if kind not in self._kinds:
            raise ArtifactError(f"a value is a {kind!r:.40}, which is not known here")
        return self._kinds[kind](content)

    def _three(self, parts: Any) -> list[Any]:
        if len(three := typed(parts, list[Any], "a slice")) != 3:
            raise ArtifactError(f"a slice has {len(three)} parts")
        return [self.value(part) for part in three]

    def _dict(self, items: Any) -> dict[str, Any]:
        known = typed(items, dict[str, Any], "a dict")
        return {key: self.value(item) for key, item in known.items()}


_PLAIN: Any = bool | int | float | str | None


class ArgumentReader(_Reader):
    """Reads the arguments of nodes, which become source code."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        """Read nodes by their names.

        Args:
            nodes: the nodes by name; it may grow, but must have a node before an argument names it.
        """
        super().__init__()
        self._kinds["node"] = self._node
        self._nodes = nodes

    def _node(self, name: Any) -> Node:
        if type(name) is not str or name not in self._nodes:
            raise ArtifactError(f"an argument is {name!r:.40}, which is no node before it")
        return self._nodes[name]


class MetaReader(_Reader):
    """Reads the fake values of nodes."""

    def __init__(self, symbols: SymbolReader) -> None:
        super().__init__()
        self._kinds |= {"symbolic": self._symbolic, "tensor": self._tensor}
        self._symbols = symbols

    def _symbolic(self, content: Any) -> Any:
        return self._symbols.size(*typed(content, tuple[str, int], "a size"))

    def _tensor(self, content: Any) -> torch.Tensor:
        dtype, device, rank, data = typed(content, tuple[str, str, int, list[Any]], "a tensor")
        *numbers, offset = [self.value(size) for size in data] or [None]
        if rank < 0 or len(numbers) != 2 * rank or not all(map(_is_size, (*numbers, offset))):
            raise ArtifactError(f"a tensor has the sizes and strides {data!r:.80}")
        sizes, strides = numbers[:rank], numbers[rank:]
        # This is what torch's "meta" kernels do. Through the mode it takes ten times as long.
        kind, place = read_dtype(dtype), read_device(device)
        try:
            made = torch.empty_strided(sizes, strides, dtype=kind, device="meta")
            if type(offset) is not int or offset:
                made = made.as_strided(sizes, strides, offset)
            return FakeTensor(self._symbols.mode, made, place)
        except RuntimeError as error:
            raise ArtifactError(f"there is no tensor of the sizes {data!r:.80}") from error


def _is_size(value: Any) -> bool:
    return isinstance(value, torch.SymInt) or (type(value) is int and value >= 0)


def read_dtype(name: str) -> torch.dtype:
    """Return the dtype of that name.

    Raises:
        ArtifactError: there is no such dtype.
    """
    value = _torch(name)
    if not isinstance(value, torch.dtype):
        raise ArtifactError(f"torch.{name} is no dtype")
    return value


def read_device(name: Any) -> torch.device:
    """Return the device of that name.

    Raises:
        ArtifactError: there is no such device, or captured models are never on one of its kind.
    """
    try:
        device = torch.device(typed(name, str, "a device"))
    except RuntimeError as error:
        raise ArtifactError(f"{name!r:.40} is no device") from error
    if device.type not in _DEVICES:
        raise ArtifactError(f"a tensor is on {name!r:.40}, where no captured model is")
    return device


def _complex(parts: Any) -> complex:
    return complex(*typed(parts, tuple[float, float], "a complex"))


def _torch(name: Any) -> Any:
    value = vars(torch).get(typed(name, str, "a value of torch"))
    if not isinstance(value, _OF_TORCH):
        raise ArtifactError(f"torch.{name:.40} is no dtype, layout or memory format")
    return value
