"""Turns what the nodes of a graph hold (arguments, fake values, structures) into plain data, and
back."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket, _OpNamespace
from torch._subclasses import FakeTensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from .errors import ArtifactError
from .stored_symbols import SymbolReader, SymbolWriter

__all__ = ["ValueReader", "ValueWriter", "read_target", "read_tree", "write_target", "write_tree"]

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_OF_TORCH = (torch.dtype, torch.layout, torch.memory_format)
"""Types whose values are attributes of the torch module."""
_FUNCTIONS: dict[str, Any] = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in {
        operator: "getitem add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge "
        "and_ or_ xor not_ inv lshift rshift",
        math: "ceil floor trunc sqrt exp log log2 cos sin tan",
        torch: "sym_max sym_min sym_int sym_float sym_not sym_ite sym_sum",
    }.items()
    for name in names.split()
    if hasattr(module, name)
} | {f"builtins.{function.__name__}": function for function in (abs, max, min, pow, round)}
"""The functions of sizes that a graph may call besides operators."""


def write_target(target: Any) -> str:
    """The name of what a node calls.

    Raises:
        ArtifactError: it is neither an operator nor a known function of sizes.
    """
    if isinstance(target, OpOverload):
        return str(target)
    for name, function in _FUNCTIONS.items():
        if target is function:
            return name
    raise ArtifactError(f"it calls {target}, which is no registered operator")


def read_target(name: str) -> Any:
    """What `write_target` named.

    Raises:
        ArtifactError: there is no such operator in this process.
    """
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    found: Any = torch.ops
    for kind, part in zip(
        (_OpNamespace, OpOverloadPacket, OpOverload), name.split("."), strict=True
    ):
        found = getattr(found, part, None)
        if not isinstance(found, kind):
            raise ArtifactError(
                f"there is no operator {name} here: import the package that registers it"
            )
    return found


def write_tree(tree: pytree.TreeSpec) -> Any:
    """A pytree's structure, as `torch.utils._pytree` writes it.

    Raises:
        ArtifactError: it has a type without a name for that.
    """
    try:
        _, data = json.loads(pytree.treespec_dumps(tree))
        read_tree(data)
    except (NotImplementedError, TypeError, AssertionError) as error:
        raise ArtifactError(f"its arguments or results cannot be written: {error}") from error
    return data


def read_tree(data: Mapping[str, Any]) -> pytree.TreeSpec:
    """The structure of `write_tree`. torch's own reader imports modules that the data names.

    Raises:
        ArtifactError: it has a type that is not registered in this process.
    """
    name = data["type"]
    if name is None:
        return pytree.tree_structure(0)
    kind = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name)
    known = pytree.SUPPORTED_SERIALIZED_TYPES.get(kind)  # type: ignore[arg-type]  # None has none
    if kind is None or known is None or known.from_dumpable_context is not None:
        raise ArtifactError(f"its arguments or results have the type {name}, which is not known")
    context = json.loads(data["context"])
    if any(isinstance(key, dict) for key in context or ()):
        raise ArtifactError(f"a {name} among its arguments or results has keys of other types")
    return pytree.TreeSpec(kind, context, [read_tree(child) for child in data["children_spec"]])


class ValueWriter:
    """Writes values: what JSON has as it is, all else as {kind: content}."""

    def __init__(self) -> None:
        self.symbols = SymbolWriter()

    def value(self, value: Any) -> Any:
        """
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


class ValueReader:
    """Reads what `ValueWriter` wrote."""

    def __init__(self, symbols: SymbolReader, nodes: Mapping[str, Node]) -> None:
        """
        Args:
            nodes: by name; those that a value names must be in it by then.
        """
        self._symbols, self._nodes = symbols, nodes

    def value(self, data: Any) -> Any:
        """
        Raises:
            ArtifactError: the data is not what `ValueWriter` writes.
        """
        if isinstance(data, list):
            return [self.value(item) for item in data]
        if not isinstance(data, dict):
            return data
        ((kind, content),) = data.items()
        read = getattr(self, f"_read_{kind}", None)
        if read is None:
            raise ArtifactError(f"a value is a {kind!r}, which is not known")
        return read(content)

    def _read_node(self, name: str) -> Node:
        return self._nodes[name]

    def _read_symbolic(self, content: list[Any]) -> Any:
        return self._symbols.size(*content)

    def _read_torch(self, name: str) -> Any:
        value = getattr(torch, name)
        if not isinstance(value, _OF_TORCH):
            raise ArtifactError(f"torch.{name} is no dtype, layout or memory format")
        return value

    def _read_device(self, name: str) -> torch.device:
        return torch.device(name)

    def _read_complex(self, parts: list[float]) -> complex:
        return complex(*parts)

    def _read_slice(self, parts: list[Any]) -> slice:
        return slice(*map(self.value, parts))

    def _read_tuple(self, items: list[Any]) -> tuple[Any, ...]:
        return tuple(map(self.value, items))

    def _read_dict(self, items: dict[str, Any]) -> dict[str, Any]:
        return {key: self.value(item) for key, item in items.items()}

    def _read_tensor(self, content: list[Any]) -> torch.Tensor:
        dtype, device, rank, numbers = content
        *numbers, offset = map(self.value, numbers)
        kind, place = self._read_torch(dtype), torch.device(device)
        sizes, strides = numbers[:rank], numbers[rank:]
        # Made as torch's kernels for "meta" make it: through the mode it takes ten times as long.
        made = torch.empty_strided(sizes, strides, dtype=kind, device="meta")
        if type(offset) is not int or offset:
            made = made.as_strided(sizes, strides, offset)
        return FakeTensor(self._symbols.mode, made, place)
