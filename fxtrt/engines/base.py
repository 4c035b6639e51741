"""The seam between the pipeline and the engines: what every engine backend can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ..graph.specs import TensorSpec
from ..settings import Settings
from .features import Features
from .network import Network

__all__ = ["Engine", "EngineBackend", "ExecutionContext", "Progress"]

Progress = Callable[[float], bool]
"""Is told, from any thread, which part (0..1) of a build is done; answering False cancels it."""


class ExecutionContext(Protocol):
    """What an engine needs besides its weights to work on one request at a time."""

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The outputs for `tensors`, which match the engine's inputs and lie on its device.

        On a GPU it works on the current stream and returns without waiting.
        """
        ...


class Engine(Protocol):
    """A loaded engine, whose weights are in memory once. Any thread may call it.

    device:        the GPU that contexts work on; None where they follow their tensors.
    scratch_bytes: of memory that a context needs while it runs, and that contexts may share that
                   run one after the other.
    """

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @property
    def device(self) -> torch.device | None: ...

    @property
    def scratch_bytes(self) -> int: ...

    def context(self, scratch: torch.Tensor | None = None) -> ExecutionContext:
        """A new context.

        Args:
            scratch: at least `scratch_bytes` on `device`; None makes a block of its own.

        Raises:
            EngineError: there is not enough memory.
        """
        ...

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The outputs for `tensors`, from a context for this one call; waits for the GPU."""
        ...


class EngineBackend(Protocol):
    """One way to run networks.

    name:        as in `Settings.engine`.
    features:    of the TensorRT module that its networks come from.
    fingerprint: all that a plan depends on besides network and settings (versions, GPU).
    plans:       whether it serialises plans; if not, `build` is never called and `load` gets
                 the network itself.
    runnable:    whether engines can run on this machine; if not, clusters run in PyTorch.
    bounded:     whether every dynamic dimension needs an upper bound.
    times_kernels: whether `build` times kernels on the GPU: two builds at once would disturb each
                 other's choice.
    selects:     whether its engines have layers whose result's size depends on data.
    """

    name: str
    features: Features
    fingerprint: str
    plans: bool
    runnable: bool
    bounded: bool
    times_kernels: bool
    selects: bool

    def build(
        self, network: Network, settings: Settings, progress: Progress | None = None
    ) -> bytes:
        """The plan of `network`.

        Raises:
            BuildError: with TensorRT's own message; also where `progress` cancelled it.
        """
        ...

    def load(
        self,
        plan: bytes | Network,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> Engine:
        """The engine of a plan (of a network, where the backend makes no plans)."""
        ...

    def supports(self, device: torch.device) -> str | None:
        """Why engines cannot take tensors on `device`, or None."""
        ...
