"""Declare the protocols between the pipeline and the engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ..graph.specs import TensorSpec
from ..settings import Settings
from .features import Features
from .network import Network
from .scratch import Scratch

__all__ = ["Engine", "EngineBackend", "ExecutionContext", "Progress"]

Progress = Callable[[float], bool]
"""A function that is called from any thread with the part (0..1) of a build that is done.

It cancels the build by returning False."""


class ExecutionContext(Protocol):
    """The state that an engine needs, besides its weights, to work on one request at a time."""

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the outputs for `tensors`, which match the engine's inputs and lie on its device.

        On a GPU the work is enqueued on the current stream, and the call does not wait for it.
        """
        ...


class Engine(Protocol):
    """A loaded engine, whose weights are in memory once. Any thread may call it.

    device:        the GPU that contexts work on; None if they follow their tensors.
    scratch_bytes: the memory that a context needs while it runs, for the largest inputs. Contexts
                   that run one after the other may share it.
    scratch_by_shape: whether contexts take no more of it than their inputs need.
    """

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @property
    def device(self) -> torch.device | None: ...

    @property
    def scratch_bytes(self) -> int: ...

    @property
    def scratch_by_shape(self) -> bool: ...

    def context(self, scratch: Scratch | None = None) -> ExecutionContext:
        """Return a new context.

        Args:
            scratch: on `device`; None makes one for this context.

        Raises:
            EngineError: there is not enough memory.
        """
        ...

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the outputs for `tensors`, from a new context, after waiting for the GPU."""
        ...


class EngineBackend(Protocol):
    """One way to run networks.

    name:        the value of `Settings.engine` that selects it.
    features:    the features of the TensorRT module that its networks come from.
    fingerprint: all that a plan depends on besides network and settings (versions, GPU).
    plans:       whether it serializes plans; if not, `build` is never called and `load` gets the
                 network itself.
    runnable:    whether engines can run on this machine; if not, clusters run in PyTorch.
    bounded:     whether every dynamic dimension needs an upper bound.
    times_kernels: whether `build` times kernels on the GPU, so that two builds at once would
                 disturb each other's measurements.
    selects:     whether its engines can run layers whose output size depends on data.
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
        """Return the plan of `network`.

        Raises:
            BuildError: TensorRT refused, with its own message; or `progress` cancelled the build.
        """
        ...

    def load(
        self,
        plan: bytes | Network,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> Engine:
        """Return the engine of a plan, or of a network if the backend makes no plans."""
        ...

    def supports(self, device: torch.device) -> str | None:
        """Return why engines cannot take tensors on `device`, or None."""
        ...
