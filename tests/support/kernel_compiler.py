"""Compile Triton kernels for a GPU that is not there, instead of launching them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

__all__ = ["compiled_kernels", "variants"]


class _NoGpu:
    """A driver that answers what Triton asks while it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@contextmanager
def compiled_kernels() -> Iterator[list[str]]:
    """Let each launch compile its kernel down to machine code, and nothing else.

    Yields:
        The names of the kernels, one for each launch so far.
    """
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    launch = JITFunction.run
    names = []

    def compile_only(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = launch(self, *arguments, **(options | {"warmup": True}))
        assert "cubin" in kernel.asm
        names.append(self.__name__)
        return kernel

    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(driver, "_active", _NoGpu()),
    ):
        yield names


def variants(module: ModuleType) -> int:
    """Return how often Triton has compiled a module's kernels."""
    caches = [getattr(one, "device_caches", {}) for one in vars(module).values()]
    return sum(len(cache[0]) for one in caches for cache in one.values())
