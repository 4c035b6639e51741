"""Build plans from networks with TensorRT or TensorRT-RTX, and load them on NVIDIA GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from ..errors import BuildError, EngineUnavailable, SettingsError
from ..graph.specs import TensorSpec
from ..settings import Settings
from .base import Progress
from .discover import TENSORRT, TENSORRT_RTX, available
from .features import Features
from .network import Network, collect_errors
from .progress import monitor
from .tensorrt_engine import TensorRTEngine
from .weak_typing import constrain_precision

__all__ = ["TensorRTBackend", "TensorRTEngine"]


class TensorRTBackend:
    """The backend of the `tensorrt` and `tensorrt_rtx` engines; see `EngineBackend`.

    Without a GPU, `tensorrt_rtx` still builds plans; the clusters then run in PyTorch.
    """

    plans = True
    bounded = True

    def __init__(self, name: str) -> None:
        """Import the module.

        Raises:
            EngineUnavailable: it is not installed, or it does not support the GPU.
        """
        self.name = name
        self.features = Features(_import(name))
        _require_supported_gpu(self.features.trt)
        self.runnable = torch.cuda.is_available()
        # TensorRT-RTX leaves the timing of kernels to the machine that runs the plan.
        self.times_kernels = name == "tensorrt"
        # TensorRT-RTX accepts such layers, but has no kernels for them.
        self.selects = name == "tensorrt"
        self.fingerprint = f"{self.features.version} for {_gpu()}"

    def supports(self, device: torch.device) -> str | None:
        if self.runnable and device.type != "cuda":
            return f"the tensor is on {device}, the engine on the GPU"
        if self.runnable and device.index not in (None, torch.cuda.current_device()):
            return f"the tensor is on {device}, not on the current GPU"
        return None

    def build(
        self, network: Network, settings: Settings, progress: Progress | None = None
    ) -> bytes:
        with collect_errors() as messages:
            config = self.config(network, settings)
            if progress and (watching := monitor(self.features.trt, progress)):
                # The monitor must outlive the config, which holds no reference to it.
                network.kept.append(watching)
                config.progress_monitor = watching
            plan = network.builder.build_serialized_network(network.definition, config)
        if plan is None:
            reason = "; ".join(messages) or "TensorRT gave no message"
            raise BuildError(f"{self.features.version} built no plan: {reason}")
        return bytes(plan)

    def load(
        self, plan: bytes | Network, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> TensorRTEngine:
        assert isinstance(plan, bytes)
        return TensorRTEngine(self.features.trt, plan, inputs, outputs)

    def config(self, network: Network, settings: Settings) -> Any:
        """Return the IBuilderConfig that `build` uses."""
        trt, features = self.features.trt, self.features
        config = network.builder.create_builder_config()
        config.builder_optimization_level = settings.optimization_level
        if settings.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        if settings.precision != "tf32":
            config.clear_flag(trt.BuilderFlag.TF32)
        if settings.tactic_sources is not None:
            config.set_tactic_sources(_tactic_sources(trt, settings.tactic_sources))
        if features.member("PreviewFeature", "PROFILE_SHARING_0806"):
            config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        if features.weakly_typed:
            constrain_precision(network, config)
        _target_capabilities(trt, config, settings)
        _add_profiles(network, config, settings)
        return config


def _import(name: str) -> ModuleType:
    module = available(TENSORRT if name == "tensorrt" else TENSORRT_RTX)
    if module is not None:
        return module
    if name == "tensorrt" and not torch.cuda.is_available():
        raise EngineUnavailable(
            "engine='tensorrt' needs an NVIDIA GPU and its driver, and torch finds none: "
            "engine='tensorrt_rtx' builds plans on any machine, engine='reference' runs on any"
        )
    package = name.replace("_", "-")
    raise EngineUnavailable(f"engine={name!r} needs its package: pip install {package}")


def _require_supported_gpu(trt: ModuleType) -> None:
    """Refuse a GPU that is not in the list of TensorRT-RTX; TensorRT decides when it builds."""
    if not torch.cuda.is_available() or not hasattr(trt, "ComputeCapability"):
        return
    major, minor = torch.cuda.get_device_capability()
    supported = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if f"SM{major}{minor}" not in supported:
        raise EngineUnavailable(
            f"TensorRT-RTX does not support {_gpu()}: it runs on {', '.join(supported)}. "
            f"Use engine='tensorrt' (pip install tensorrt) or engine='reference'"
        )


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "no GPU"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (sm{major}{minor})"


def _tactic_sources(trt: ModuleType, names: Sequence[str]) -> int:
    members = trt.TacticSource.__members__
    for name in names:
        if name not in members:
            raise SettingsError(
                f"tactic_sources: there is no {name!r}, there are {', '.join(members)}"
            )
    sources = 0
    for name in names:
        sources |= 1 << int(members[name])
    return sources


def _target_capabilities(trt: ModuleType, config: Any, settings: Settings) -> None:
    if not settings.compute_capabilities:
        return
    if not hasattr(config, "set_compute_capability"):
        raise SettingsError("compute_capabilities: only tensorrt_rtx builds for other GPUs")
    members = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(settings.compute_capabilities)
    for index, name in enumerate(settings.compute_capabilities):
        if name.upper() not in members:
            known = ", ".join(m.lower() for m in members if m.startswith("SM"))
            raise SettingsError(f"compute_capabilities: there is no {name!r}, there are {known}")
        config.set_compute_capability(members[name.upper()], index)


def _add_profiles(network: Network, config: Any, settings: Settings) -> None:
    """Add a profile for the example's shapes, and one for batches if these are much larger."""
    if all(spec.is_static for spec in network.inputs):
        return
    _add_profile(network, config, [spec.optimum for spec in network.inputs])
    fullest = [spec.fullest for spec in network.inputs if spec.fullest is not None]
    if settings.most_images > 1 and fullest and _is_much_fuller(network.inputs):
        _add_profile(network, config, fullest)


def _is_much_fuller(inputs: Sequence[TensorSpec]) -> bool:
    return any(
        spec.fullest is not None and math.prod(spec.fullest) > 2 * math.prod(spec.optimum)
        for spec in inputs
    )


def _add_profile(network: Network, config: Any, optima: Sequence[tuple[int, ...]]) -> None:
    profile = network.builder.create_optimization_profile()
    for spec, optimum in zip(network.inputs, optima, strict=True):
        if not spec.is_static:
            low = tuple(max(1, size) for size in spec.low)
            profile.set_shape(spec.name, low, optimum, spec.high)
    if config.add_optimization_profile(profile) < 0:
        shapes = ", ".join(f"{spec.name} {spec.describe()}" for spec in network.inputs)
        raise BuildError(f"TensorRT refused the ranges of the inputs: {shapes}")
