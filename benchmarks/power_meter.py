"""Samples how busy a GPU is and what power it draws, through NVML or nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

import torch

__all__ = ["Meter", "Readings", "find_meter"]

_PERIOD = 0.1
Reading = tuple[float, float]
"""The share of the time in which kernels ran, in percent, and watts."""


@dataclass(slots=True)
class Readings:
    """Samples of a GPU, which grow while it is measured."""

    samples: list[Reading] = field(default_factory=list)

    def record(self) -> dict[str, float]:
        """Return the means, or nothing without a sample."""
        if not self.samples:
            return {}
        busy, watts = zip(*self.samples, strict=True)
        return {"gpu_utilization": fmean(busy), "power_w": fmean(watts)}


class Meter:
    """Reads one GPU, or says in `missing` why there is nothing to read."""

    def __init__(self, read: Callable[[], Reading] | None, missing: str = "") -> None:
        self._read = read
        self.missing = missing

    @contextmanager
    def running(self) -> Iterator[Readings]:
        """Sample ten times a second while the block runs."""
        readings, stop = Readings(), threading.Event()
        if self._read is None:
            yield readings
            return
        read = self._read

        def sample() -> None:
            while not stop.wait(_PERIOD):
                readings.samples.append(read())

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield readings
        finally:
            stop.set()
            thread.join()


def find_meter() -> Meter:
    """Return a meter of the current GPU."""
    if not torch.cuda.is_available():
        return Meter(None, "there is no NVIDIA GPU here")
    try:
        return Meter(_nvml())
    except ImportError:
        pass
    if shutil.which("nvidia-smi"):
        return Meter(_nvidia_smi)
    return Meter(None, "neither nvidia-ml-py nor nvidia-smi is installed")


def _nvml() -> Callable[[], Reading]:
    import pynvml

    pynvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def read() -> Reading:
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
        return float(busy), pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3

    read()
    return read


def _nvidia_smi() -> Reading:
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    query = "--query-gpu=utilization.gpu,power.draw"
    command = ["nvidia-smi", f"--id={uuid}", query, "--format=csv,noheader,nounits"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    busy, watts = text.strip().split(",")
    return float(busy), float(watts)
