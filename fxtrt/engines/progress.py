"""Turn the phases of a TensorRT build into one fraction, and let its receiver cancel the build."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from .base import Progress

__all__ = ["Phases", "monitor"]


@dataclass(slots=True)
class _Phase:
    """A phase of a build, which is a part of one step of its parent."""

    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The phases of a build that are under way, each within a step of its parent."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._furthest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._phases[name] = _Phase(parent, steps)

    def step(self, name: str) -> None:
        self._phases[name].done += 1

    def finish(self, name: str) -> None:
        self._phases.pop(name, None)

    @property
    def fraction(self) -> float:
        """The part (0..1) of the build that is done, which never falls."""
        self._furthest = max(self._furthest, self._fraction_of(None))
        return self._furthest

    def _fraction_of(self, parent: str | None) -> float:
        """Return how much of one step of `parent` the phases within it have done."""
        inner = [
            (phase.done + self._fraction_of(name)) / phase.steps
            for name, phase in self._phases.items()
            if phase.parent == parent
        ]
        return min(1.0, max(inner, default=0.0))


def monitor(trt: ModuleType, progress: Progress) -> Any:
    """Return an IProgressMonitor that calls `progress`; None if TensorRT has no monitors (8.6)."""
    return _monitor_class(trt)(progress) if hasattr(trt, "IProgressMonitor") else None


@cache
def _monitor_class(trt: ModuleType) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # a run-time module
        """Calls `progress`; TensorRT may call it from several threads."""

        def __init__(self, progress: Progress) -> None:
            trt.IProgressMonitor.__init__(self)
            self._progress = progress
            self._phases = Phases()
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name)
                fraction = self._phases.fraction
            return self._progress(fraction)

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

    return Monitor
