"""Record the torch modes that a graph was captured in, and compare them with those of a call.

Modes such as autocast change what operators compute without a trace in the graph's calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

__all__ = ["Ambient", "explicit", "explicitly", "is_transformed"]

Autocast = tuple[tuple[str, torch.dtype], ...]

_CPU = torch.device("cpu")
_default_dtype = torch.get_default_dtype
_deterministic = torch._C._get_deterministic_algorithms
_is_autocast = torch._C._is_any_autocast_enabled
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transform = torch._C._functorch.peek_interpreter_stack
_jit_trace = torch._C._get_tracing_state


class Ambient:
    """The torch modes at its creation. A graph that is captured then is valid in these modes only.

    autocast: the devices with autocast, each with the type that it computes in.
    device:   torch's default device.
    """

    def __init__(self) -> None:
        self.dtype = _default_dtype()
        self.deterministic = _deterministic()
        self.autocast = _autocast()
        self.device = _default_device()

    def words(self) -> dict[str, str]:
        """Return the modes as text, which another process can compare."""
        return {
            "default dtype": str(self.dtype),
            "default device": str(self.device),
            "autocast": _tell(self.autocast),
            "deterministic algorithms": str(self.deterministic),
        }

    def mismatch(self) -> str | None:
        """Return why a graph that was captured in these modes does not fit a call now, or None."""
        if _default_dtype() != self.dtype:
            return f"the default dtype is {_default_dtype()}, it was {self.dtype} when compiling"
        if _deterministic() != self.deterministic:
            return "use_deterministic_algorithms was set otherwise when compiling"
        if (_is_autocast() or self.autocast) and _autocast() != self.autocast:
            return f"autocast is {_tell(_autocast())}, it was {_tell(self.autocast)} when compiling"
        if _function_modes() or self.device != _CPU:
            if (mode := _other_function_mode()) is not None:
                return f"the mode {mode} is on, which sees what operators run"
            if (device := _default_device()) != self.device:
                return f"the default device is {device}, it was {self.device} when compiling"
        if _dispatch_modes() and (mode := _other_dispatch_mode()) is not None:
            return f"the mode {mode} is on, which sees what operators run"
        if is_transformed():
            return "a transform of torch.func (vmap, grad, jvp) or forward-mode autograd is at work"
        if _jit_trace() is not None:
            return "torch.jit.trace is recording"
        return None


def is_transformed() -> bool:
    """Return whether a transform is active, in which tensors carry batches or gradients too."""
    return _transform() is not None or forward_ad._current_level >= 0


def explicitly(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `run` so that it runs under `explicit`."""

    def explicit_run(*args: Any, **kwargs: Any) -> Any:
        if not _is_autocast() and not _function_modes():
            # Entering a context takes time, and here it would change nothing.
            return run(*args, **kwargs)
        with explicit():
            return run(*args, **kwargs)

    return explicit_run


@contextmanager
def explicit() -> Iterator[None]:
    """Run operators as they are written, without autocast, default device and function modes.

    The casts and devices that these modes caused are calls of the captured graph already.
    """
    with torch._C._DisableAutocast(), torch._C.DisableTorchFunction():
        yield


def _autocast() -> Autocast:
    if not _is_autocast():
        return ()
    devices = torch._C._autocast_supported_devices()
    return tuple(
        (device, torch.get_autocast_dtype(device))
        for device in devices
        if torch.is_autocast_enabled(device)
    )


def _tell(autocast: Autocast) -> str:
    return ", ".join(f"{dtype} on {device}" for device, dtype in autocast) or "off"


def _modes() -> list[Any]:
    return [torch._C._get_function_stack_at(i) for i in range(_function_modes())]


def _default_device() -> torch.device:
    devices = [mode.device for mode in _modes() if isinstance(mode, DeviceContext)]
    return devices[-1] if devices else _CPU


def _other_function_mode() -> str | None:
    others = (mode for mode in _modes() if not isinstance(mode, DeviceContext))
    return next((type(mode).__name__ for mode in others), None)


def _other_dispatch_mode() -> str | None:
    stack = _get_current_dispatch_mode_stack()
    others = (mode for mode in stack if not getattr(mode, "only_watches", False))
    return next((type(mode).__name__ for mode in others), None)
