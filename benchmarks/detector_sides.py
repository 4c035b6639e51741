"""Turns a detector and the name of a way to run it into a call, and the seconds to make it."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from detector_cases import Built
from torch import nn

import fxtrt

__all__ = ["GROUPS", "SIDES", "Side", "make_side", "sides_of", "without_tf32"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "eager": ("eager-tf32", "eager-autocast", "eager-channels-last"),
    "inductor": ("inductor", "inductor-reduce-overhead"),
    "fixed": ("fxtrt-fixed",),
    "jit": ("fxtrt-jit",),
}
"""The sides by the name that the command line takes for all of a kind."""


@dataclass(slots=True)
class Side:
    """A way to run a detector.

    call:     takes a batch and returns the answers.
    seconds:  of making it, by step: "cold", "cached", "load" or "first_call".
    compiled: the model that fxtrt can report on, if there is one.
    close:    puts back what making it changed in the process.
    """

    call: Callable[[Any], Any]
    seconds: dict[str, float] = field(default_factory=dict)
    compiled: nn.Module | None = None
    close: Callable[[], None] = lambda: None


def make_side(
    name: str, built: Built, count: int, options: Mapping[str, Any], starts: bool = True
) -> Side:
    """Make one side of a detector for batches of `count` images.

    Args:
        options: of `fxtrt.compile`.
        starts: whether to also time another compilation with cached plans, and a load from a file;
            of fxtrt with its defaults only.
    """
    return SIDES[name](built, count, options, starts)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Let float32 be float32 while the block runs."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    _allow_tf32(False)
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def _allow_tf32(allowed: bool = True) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def _device_type(model: nn.Module) -> str:
    return next(model.parameters()).device.type


def _autocast(model: nn.Module) -> Callable[[], AbstractContextManager[Any]]:
    kind = _device_type(model)
    dtype = torch.float16 if kind == "cuda" else torch.bfloat16
    return lambda: torch.autocast(kind, dtype)


def _running(
    model: Callable[[Any], Any], context: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Callable[[Any], Any]:
    def call(batch: Any) -> Any:
        with torch.no_grad(), context():
            return model(batch)

    return call


def _eager_tf32(built: Built, count: int, options: Mapping[str, Any], starts: bool) -> Side:
    _allow_tf32()
    return Side(_running(built.model))


def _eager_autocast(built: Built, count: int, options: Mapping[str, Any], starts: bool) -> Side:
    _allow_tf32()
    return Side(_running(built.model, _autocast(built.model)))


def _channels_last(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


def _eager_channels_last(
    built: Built, count: int, options: Mapping[str, Any], starts: bool
) -> Side:
    _allow_tf32()
    return Side(_running(_channels_last(built.model), _autocast(built.model)))


def _inductor(mode: str) -> Callable[..., Side]:
    def make(built: Built, count: int, options: Mapping[str, Any], starts: bool) -> Side:
        _allow_tf32()
        torch.compiler.reset()
        fast = torch.compile(_channels_last(built.model), mode=mode)
        side = Side(_running(fast, _autocast(built.model)))
        side.seconds["first_call"] = _seconds(lambda: side.call(built.batch(count)))[0]
        return side

    return make


def _fxtrt(**fixed: Any) -> Callable[..., Side]:
    """Return a function that compiles with the defaults, and the plans in a folder of their own."""

    def make(built: Built, count: int, options: Mapping[str, Any], starts: bool) -> Side:
        with tempfile.TemporaryDirectory() as folder:
            given = {"cache_dir": Path(folder, "plans"), **options, **fixed}
            example = (built.batch(count),)
            cold, fast = _seconds(lambda: fxtrt.compile(built.model, example, **given))
            seconds = {"cold": cold}
            if starts and not fixed:
                seconds |= _starts(fast, built.model, example, given, Path(folder, "d.fxtrt"))
        return Side(_running(fast), seconds, fast)

    return make


def _starts(
    fast: nn.Module, model: nn.Module, example: Any, options: Mapping[str, Any], path: Path
) -> dict[str, float]:
    cached, _ = _seconds(lambda: fxtrt.compile(model, example, **options))
    fxtrt.save(fast, path)
    serving = {name: options[name] for name in ("slots", "cuda_graphs") if name in options}
    load, _ = _seconds(lambda: fxtrt.load(path, model, **serving))
    return {"cached": cached, "load": load}


def _fxtrt_jit(built: Built, count: int, options: Mapping[str, Any], starts: bool) -> Side:
    from fxtrt.detection import prepare

    torch.compiler.reset()
    given = {name: value for name, value in options.items() if name != "dynamic_shapes"}
    put_back = prepare(built.model)
    try:
        fast = torch.compile(built.model, backend="fxtrt", options=given)
        side = Side(_running(fast), compiled=cast(nn.Module, fast), close=put_back)
        side.seconds["first_call"] = _seconds(lambda: side.call(built.batch(count)))[0]
    except BaseException:
        put_back()
        raise
    return side


def _seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


SIDES: Mapping[str, Callable[..., Side]] = {
    "eager-tf32": _eager_tf32,
    "eager-autocast": _eager_autocast,
    "eager-channels-last": _eager_channels_last,
    "inductor": _inductor("default"),
    "inductor-reduce-overhead": _inductor("reduce-overhead"),
    "fxtrt": _fxtrt(),
    "fxtrt-fixed": _fxtrt(dynamic_shapes={}),
    "fxtrt-jit": _fxtrt_jit,
}


def sides_of(names: Sequence[str]) -> list[str]:
    """Return the sides that the command line names, by themselves or by their group."""
    return [side for name in names for side in GROUPS.get(name, (name,))]
