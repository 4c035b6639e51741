"""Turns a model, without the values of its weights, into texts that other processes can compare."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import re
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypedDict

import numpy as np
import torch

from ..detection import recipe_of
from ..graph.ambient import Ambient
from ..graph.weights import named_tensors
from .digests import capture_digest, code_digest, sha256, weight_digest

__all__ = ["CODE", "Identity", "difference", "identity_of", "versions_now", "weights_digest"]

CODE = "fxtrt's code"
"""Stands for fxtrt's own sources among the versions."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_INTERNAL = frozenset(torch.nn.Module().__dict__) - {"training", *_HOOKS}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice)
_OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
_FUNCTIONS = (type, FunctionType, BuiltinFunctionType, MethodType, torch._ops.OpOverload)
_WRAPPERS = (staticmethod, classmethod)
_NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")
_LONGEST, _DEEPEST = 200, 12
_ONE_OF = {
    "versions": "the version of",
    "process": "torch's",
    "modules": "the module",
    "tensors": "the weight",
    "attributes": "the attribute",
    "classes": "the class attribute",
}
_EMPTY_CELL = CellType()
_UNSEEN = "?"
"""Stands for a value that cannot be compared between processes."""


class Identity(TypedDict):
    """All that a capture of a model depends on besides its inputs and the values of its weights.

    modules:    the class of each module.
    attributes: the attributes of all modules, without weights.
    classes:    the functions and plain values of the modules' classes.
    tensors:    the dtype, shape, strides and device of each weight.
    files:      digests of the sources of all these classes and functions.
    versions:   the versions of their packages.
    process:    torch's defaults.
    unseen:     the attributes with a value whose content cannot be described.
    """

    modules: dict[str, str]
    attributes: dict[str, str]
    classes: dict[str, str]
    tensors: dict[str, str]
    files: dict[str, str]
    versions: dict[str, str]
    process: dict[str, str]
    unseen: list[str]


def identity_of(model: torch.nn.Module) -> Identity:
    """Return what a capture of `model` depends on, except its inputs and the weights' values."""
    modules = dict(model.named_modules(remove_duplicate=False))
    describer = _Describer({id(module): path for path, module in reversed(modules.items())})
    attributes: dict[str, str] = {}
    for path, module in modules.items():
        describer.note(type(module))
        if (recipe := recipe_of(module)) is not None:
            for function in (*recipe.equivalents.values(), recipe.arguments, recipe.dynamic_shapes):
                describer.note(function)
        for name, value in module.__dict__.items():
            if name in _HOOKS:
                value = list(value.values())
            if name not in _INTERNAL and value != []:
                attributes[f"{path}.{name}".removeprefix(".")] = describer.short(value)
    return {
        "modules": {path: _name(type(module)) for path, module in modules.items()},
        "attributes": attributes,
        "classes": _class_attributes(describer),
        "tensors": {name: _form(tensor) for name, tensor in _tensors(model)},
        "files": {name: _file_digest(name) for name in sorted(describer.sources)},
        "versions": _versions(describer.sources),
        "process": Ambient().words(),
        "unseen": [name for name, text in attributes.items() if _UNSEEN in text],
    }


def difference(saved: Identity, found: Identity) -> str | None:
    """Return the first difference between two identities, or None."""
    for kind in (*_ONE_OF, "files"):
        before, now = saved[kind], found[kind]  # type: ignore[literal-required]  # all kinds are keys
        for name in dict.fromkeys((*before, *now)):
            was, is_now = (one.get(name) or "not there" for one in (before, now))
            if was == is_now or (kind == "versions" and "not there" in (was, is_now)):
                continue  # A missing package shows in modules and attributes.
            if kind == "files":
                return f"the source of {name} has changed"
            return f"{_ONE_OF[kind]} {name!r} was {was}, and is now {is_now}"
    return None


def weights_digest(model: torch.nn.Module) -> str:
    """Return a digest of the values of all parameters and buffers, under their names."""
    tensors = _tensors(model)
    unique = {id(tensor): tensor for _, tensor in tensors}
    with ThreadPoolExecutor(4) as pool:  # hashlib releases the GIL
        digests = dict(zip(unique, pool.map(weight_digest, unique.values()), strict=True))
    named = "\n".join(f"{name} {digests[id(tensor)]}" for name, tensor in tensors)
    return hashlib.sha256(named.encode()).hexdigest()


def _class_attributes(describer: _Describer) -> dict[str, str]:
    """Return the plain values and functions of classes: code may set them after the definition."""
    found: dict[str, str] = {}
    for cls in list(describer.classes):
        for name, value in vars(cls).items():
            function = value.__func__ if isinstance(value, _WRAPPERS) else value
            function = function.fget if isinstance(function, property) else function
            is_hidden = name.startswith("__") and not isinstance(function, FunctionType)
            if isinstance(function, (FunctionType, *_PLAIN, tuple)) and not is_hidden:
                found[f"{_name(cls)}.{name}"] = describer.short(function)
    return found


def _tensors(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return sorted(named_tensors(model), key=lambda pair: pair[0])


def _form(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)} {tuple(tensor.stride())} on {tensor.device}"


def _versions(sources: set[str]) -> dict[str, str]:
    packages = sorted({"torch", *(name.partition(".")[0] for name in sources)} - {"__main__"})
    return versions_now([*packages, "fxtrt", CODE])


def versions_now(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages, and under `CODE` a digest of fxtrt's own sources."""
    return {
        name: sha256(code_digest(), capture_digest()) if name == CODE else _version(name)
        for name in names
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _file_digest(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return "no file"
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _name(value: Any) -> str:
    module = getattr(value, "__module__", None) or "builtins"
    return f"{module}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _bound(function: Any) -> list[Any]:
    """Return the values that a function holds: its defaults, and the variables of its closure."""
    cells = getattr(function, "__closure__", None) or ()
    contents = [cell.cell_contents for cell in cells if cell != _EMPTY_CELL]
    keywords = getattr(function, "__kwdefaults__", None) or {}
    defaults = getattr(function, "__defaults__", None) or ()
    return [*defaults, *keywords.values(), *contents]


class _Describer:
    """Describes values by texts that are the same in every process.

    classes: the classes of the values, and their bases, without torch's.
    sources: the modules where these classes, and functions, are defined.
    """

    def __init__(self, paths: Mapping[int, str]) -> None:
        """Describe modules of the model by their paths.

        Args:
            paths: the paths by `id` of the module.
        """
        self._paths = paths
        self._visited: dict[int, tuple[int, Any]] = {}
        self.classes: dict[type, None] = {}
        self.sources: set[str] = set()

    def note(self, value: Any) -> None:
        """Add the source of a class and its bases, or of a function, to `sources`."""
        for one in value.__mro__ if isinstance(value, type) else [value]:
            module = getattr(one, "__module__", None)
            is_torch = (module or "builtins").partition(".")[0] in ("builtins", "torch")
            if module is not None and not is_torch:
                self.sources.add(module)
                if isinstance(one, type):
                    self.classes[one] = None

    def short(self, value: Any) -> str:
        """Return a text for `value`, with a digest in place of most of a long one."""
        self._visited.clear()
        text = "".join(self._describe(value, 0))
        if len(text) <= _LONGEST:
            return text
        digest = hashlib.sha256(text.encode()).hexdigest()
        unseen = _UNSEEN if _UNSEEN in text else ""
        return f"{text[: _LONGEST // 2].replace(_UNSEEN, '')}... {digest}{unseen}"

    def _describe(self, value: Any, depth: int) -> Iterator[str]:
        if isinstance(value, enum.Enum):
            yield f"{_name(type(value))}.{value.name}"
        elif isinstance(value, _PLAIN):
            yield repr(value).replace(_UNSEEN, "\\x3f")
        elif isinstance(value, (*_OF_TORCH, torch.fx.Graph, re.Pattern, PurePath)):
            yield str(value)
        elif isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, torch.Tensor):
            yield f"tensor {_form(value)} {weight_digest(value)}"
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            digest = hashlib.sha256(value.tobytes()).hexdigest()
            yield f"array {value.dtype} {value.shape} {digest}"
        elif id(value) in self._paths:
            yield f"the module {self._paths[id(value)]!r}"
        elif depth > _DEEPEST:
            yield _UNSEEN
        elif id(value) in self._visited:
            yield f"number {self._visited[id(value)][0]} again"
        else:
            # Tuples get no number: whether equal tuples are one object varies between processes.
            if not isinstance(value, (tuple, *_FUNCTIONS)):
                self._visited[id(value)] = len(self._visited), value
            yield from self._describe_parts(value, depth + 1)

    def _describe_parts(self, value: Any, depth: int) -> Iterator[str]:
        parts: Any
        if isinstance(value, _FUNCTIONS):
            self.note(value)
            yield _name(value)
            parts = [value.__self__] if isinstance(value, MethodType) else _bound(value)
        elif isinstance(value, functools.partial):
            yield "partial"
            parts = [value.func, value.args, value.keywords]
        elif isinstance(value, Mapping):
            yield _name(type(value))
            parts = [part for item in value.items() for part in item]
        elif isinstance(value, (set, frozenset)):
            yield f"set {sorted(''.join(self._describe(item, depth)) for item in value)}"
            return
        elif isinstance(value, (list, tuple)):
            yield _name(type(value))
            parts = value
        else:
            parts = yield from self._describe_object(value)
        yield "("
        for part in parts:
            yield from self._describe(part, depth)
            yield ", "
        yield ")"

    def _describe_object(self, value: Any) -> Generator[str, None, list[Any]]:
        self.note(type(value))
        name = _name(type(value))
        yield name
        state = getattr(value, "__dict__", None)
        is_library = name.partition(".")[0] in ("torch", *sys.stdlib_module_names)
        if state is None or (is_library and name not in _NAMESPACES):
            # The content of such an object says little: a logger holds all other loggers.
            yield _UNSEEN
            return []
        return [part for item in state.items() for part in item]
