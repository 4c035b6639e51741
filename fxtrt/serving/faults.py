"""Tells errors of one image from those of memory, of slots and of the whole device."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from enum import Enum

import torch

from ..errors import SlotTimeout

__all__ = ["Fault", "fault_of", "free_frames"]


class Fault(Enum):
    """The cause of a batch's error, which decides what becomes of its requests.

    IMAGE:  perhaps one image; each runs alone.
    MEMORY: the size of the batch; it runs in halves.
    SLOT:   neither; the requests fail.
    DEVICE: the CUDA context, which does not recover: nothing runs any more in this process.
    """

    IMAGE = "image"
    MEMORY = "memory"
    SLOT = "slot"
    DEVICE = "device"


_STICKY = re.compile(
    r"device-side assert|illegal memory access|illegal instruction|misaligned address"
    r"|unspecified launch failure|launch failed|invalid program counter|hardware stack error"
    r"|uncorrectable|launch timed out|context is destroyed|operation not supported on global"
    r"|fallen off the bus|GPU is lost|NVLink",
    re.IGNORECASE,
)
"""Messages of the CUDA errors after which every later call fails too."""
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|OutOfMemory|bad_alloc", re.IGNORECASE)
_CUDA = re.compile(r"\bCUDA\b|\bcuda|cudnn|cublas", re.IGNORECASE)


def fault_of(error: BaseException, device: torch.device | None = None) -> Fault:
    """Return what `error` is about, also where an error of fxtrt has it as its cause.

    Args:
        device: the device of the worker. After an error of CUDA with an unknown message, a GPU is
            asked whether it still works.
    """
    chain = list(_causes(error))
    if any(_is_cuda(one) and _STICKY.search(str(one)) for one in chain):
        return Fault.DEVICE
    if any(_is_of_memory(one) for one in chain):
        return Fault.MEMORY
    if any(map(_is_cuda, chain)) and not _works(device):
        return Fault.DEVICE
    if any(isinstance(one, SlotTimeout) for one in chain):
        return Fault.SLOT
    return Fault.IMAGE


def free_frames(error: BaseException) -> None:
    """Let go of the local variables in an error's traceback, which hold the batch's tensors.

    The memory is needed for the next batch, and the client may keep the error for long. The first
    frame is the caller's own, and leaves the traceback.
    """
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next
    for one in _causes(error):
        traceback.clear_frames(one.__traceback__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _is_cuda(error: BaseException) -> bool:
    if isinstance(error, getattr(torch, "AcceleratorError", ())):
        return True
    return isinstance(error, RuntimeError) and _CUDA.search(str(error)) is not None


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, Exception) and _NO_MEMORY.search(str(error)) is not None


def _works(device: torch.device | None) -> bool:
    """Return whether a GPU still does what it is asked."""
    if device is None or device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
        return bool((torch.ones(1, device=device) + 1).item() == 2)
    except torch.cuda.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
