"""An engine that refuses networks by the names of their layers, with TensorRT's messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fxtrt.engines.base import Progress
from fxtrt.engines.network import Network
from fxtrt.engines.reference import ReferenceBackend, ReferenceEngine
from fxtrt.errors import BuildError
from fxtrt.graph.specs import TensorSpec
from fxtrt.settings import Settings

__all__ = ["FailingBackend", "FailingPlanner", "no_implementation"]


class FailingBackend(ReferenceBackend):
    """The reference engine, but a network with a fault is refused.

    Args:
        message: takes the layers' names and returns TensorRT's message, or "" for a good network.
    """

    def __init__(self, message: Callable[[Sequence[str]], str]) -> None:
        super().__init__()
        self._message = message
        self.builds: list[list[str]] = []
        """The names of the layers of each network that was to be built."""

    def load(
        self, plan: bytes | Network, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> ReferenceEngine:
        assert isinstance(plan, Network)
        self.refuse(plan)
        return super().load(plan, inputs, outputs)

    def refuse(self, network: Network) -> None:
        """Count a build, and raise if the network has a fault."""
        net = network.definition
        self.builds.append([net.get_layer(i).name for i in range(net.num_layers)])
        if message := self._message(self.builds[-1]):
            raise BuildError(f"TensorRT 8.6.0 built no plan: {message}")


class FailingPlanner(FailingBackend):
    """The same with plans, which stand for networks that the backend remembers."""

    plans = True

    def __init__(self, message: Callable[[Sequence[str]], str]) -> None:
        super().__init__(message)
        self._networks: dict[bytes, Network] = {}

    def build(
        self, network: Network, settings: Settings, progress: Progress | None = None
    ) -> bytes:
        self.refuse(network)
        plan = f"plan {len(self._networks)}".encode()
        self._networks[plan] = network
        return plan

    def load(
        self, plan: bytes | Network, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> ReferenceEngine:
        assert isinstance(plan, bytes)
        return ReferenceEngine(self._networks[plan], inputs, outputs)


def no_implementation(layers: str) -> str:
    """Return what TensorRT 8.6 logs, twice, where it has no kernel."""
    return (
        f"10: Could not find any implementation for node {layers}.; "
        "10: [optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error "
        f"(Could not find any implementation for node {layers}.)"
    )
