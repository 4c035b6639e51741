"""Execute a network layer by layer with PyTorch, to check it without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch

from ..errors import BuildError, EngineError
from ..graph.specs import TensorSpec
from ..settings import Settings
from .base import Progress
from .discover import import_tensorrt
from .features import Features
from .interpreter import read_program
from .network import Network
from .scratch import Scratch

__all__ = ["ReferenceBackend", "ReferenceEngine"]


class ReferenceEngine:
    """A network as a list of PyTorch calls.

    Each layer's result must have the shape and dtype that TensorRT infers for it.

    Raises:
        EngineError: a layer has no PyTorch equivalent, or the names of `inputs` and `outputs`
            are not the network's.
    """

    device = None
    scratch_bytes = 0
    scratch_by_shape = False

    def __init__(
        self, network: Network, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self.inputs: Sequence[TensorSpec] = tuple(inputs)
        self.outputs: Sequence[TensorSpec] = tuple(outputs)
        net = network.definition
        _require_names("inputs", [net.get_input(i).name for i in range(net.num_inputs)], inputs)
        _require_names("outputs", [net.get_output(i).name for i in range(net.num_outputs)], outputs)
        self._program = read_program(network, [spec.name for spec in outputs])

    def context(self, scratch: Scratch | None = None) -> ReferenceEngine:
        """Return the engine itself, because a run keeps no state."""
        return self

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the outputs, computed on the device of `tensors`.

        Raises:
            EngineError: a tensor does not fit its input, or a layer disagrees with TensorRT.
        """
        if len(tensors) != len(self.inputs):
            raise EngineError(f"got {len(tensors)} tensors for {len(self.inputs)} inputs")
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            if reason := spec.mismatch(tensor):
                raise EngineError(reason)
        devices = {tensor.device for tensor in tensors} or {torch.device("cpu")}
        if len(devices) > 1:
            raise EngineError(f"the inputs lie on {sorted(map(str, devices))}: move them together")
        named = {s.name: t.detach() for s, t in zip(self.inputs, tensors, strict=True)}
        formats = {spec.name: spec.memory_format for spec in self.outputs}
        return self._program.run(named, formats, devices.pop())


class ReferenceBackend:
    """The backend that runs networks without building them; any TensorRT module can hold them.

    Args:
        trt: the TensorRT module; None finds one.

    Raises:
        EngineUnavailable: there is no TensorRT module on this machine.
    """

    name = "reference"
    plans = False
    runnable = True
    bounded = False
    times_kernels = False
    selects = True

    def __init__(self, trt: ModuleType | None = None) -> None:
        self.features = Features(import_tensorrt() if trt is None else trt, stand_ins=True)
        self.fingerprint = (
            f"networks of {self.features.version}, executed by torch {torch.__version__}"
        )

    def build(
        self, network: Network, settings: Settings, progress: Progress | None = None
    ) -> bytes:
        """Raise always, because `load` takes the network itself."""
        raise BuildError("the reference engine makes no plans: pass the network to `load`")

    def load(
        self,
        plan: bytes | Network,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> ReferenceEngine:
        """Return the engine of a network."""
        if not isinstance(plan, Network):
            raise EngineError("the reference engine runs networks and cannot load a plan")
        return ReferenceEngine(plan, inputs, outputs)

    def supports(self, device: torch.device) -> str | None:
        """Return None, because PyTorch runs on every device."""
        return None


def _require_names(what: str, names: Sequence[str], specs: Sequence[TensorSpec]) -> None:
    expected = [spec.name for spec in specs]
    if sorted(names) != sorted(expected):
        raise EngineError(f"the network's {what} are {list(names)}, expected {expected}")
