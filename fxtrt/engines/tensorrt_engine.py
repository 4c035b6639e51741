"""Load a plan as an engine on the GPU, and run it in execution contexts."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from ..errors import EngineError
from ..graph.specs import TensorSpec
from .allocator import output_allocator
from .features import Features
from .network import collect_errors, logger_for
from .plugins import load_plugins
from .scratch import Scratch

__all__ = ["TensorRTContext", "TensorRTEngine"]

_SMALLEST_SCRATCH = 512
"""In bytes; an engine without scratch memory gets a block too, so that its address is valid."""


class TensorRTEngine:
    """A deserialised plan on the current GPU; see `Engine`.

    Raises:
        EngineError: TensorRT refuses the plan, or its tensors have other types.
    """

    def __init__(
        self,
        trt: ModuleType,
        plan: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.device = torch.device("cuda", torch.cuda.current_device())
        with collect_errors() as messages:
            without_plugins = load_plugins(trt)
            self._runtime = trt.Runtime(logger_for(trt))
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            reasons = [*messages, *([without_plugins] if without_plugins else [])]
            raise EngineError(f"TensorRT could not load the plan: {'; '.join(reasons)}")
        features = Features(trt)
        for spec in (*self.inputs, *self.outputs):
            dtype = features.to_torch(self._engine.get_tensor_dtype(spec.name))
            if dtype != spec.dtype:
                raise EngineError(f"the plan has {spec.name} as {dtype}, expected {spec.dtype}")
            if spec.channels_last:
                _require_channels_last(trt, self._engine, spec.name)
        self.scratch_bytes = max(_SMALLEST_SCRATCH, _scratch_bytes(self._engine))
        kind = getattr(trt, "IExecutionContext", None)
        self.scratch_by_shape = hasattr(kind, "update_device_memory_size_for_shapes")
        self._trt = trt
        self._lock = threading.Lock()
        self._optima = _optima(self._engine, self.inputs)

    def context(self, scratch: Scratch | None = None) -> TensorRTContext:
        if scratch is None:
            scratch = Scratch(self.device)
        needed = None if self.scratch_by_shape else self.scratch_bytes
        if needed is not None:
            scratch.at_least(needed)
        with self._lock, collect_errors() as messages:
            context = _create(self._trt, self._engine)
            if context is None:
                why = "; ".join(messages) or "the GPU memory may be full; use fewer slots"
                raise EngineError(f"TensorRT could not create an execution context: {why}")
            if not all(spec.is_static for spec in self.inputs):
                self._choose_profile(context)
        return TensorRTContext(
            self._trt, context, self.inputs, self.outputs, scratch, needed, self._optima
        )

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        context = self.context()
        results = context.run(tensors)
        # The context is destroyed on return, so its work must have ended.
        torch.cuda.current_stream(self.device).synchronize()
        return results

    def _choose_profile(self, context: Any) -> None:
        """Give the context the engine's first optimization profile.

        TensorRT 8.6 gives it to the first context by itself. Others may share it because the plan
        was built with PROFILE_SHARING_0806.
        """
        if context.active_optimization_profile == 0:
            return
        stream = torch.cuda.current_stream(self.device)
        _set_profile(context, 0, stream)
        # The context will run on other streams too, so the profile must be in place.
        stream.synchronize()


class TensorRTContext:
    """An execution context, for one thread at a time and one stream after the other.

    No other work may use the scratch memory while this runs.
    """

    def __init__(
        self,
        trt: ModuleType,
        context: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        scratch: Scratch,
        needed: int | None,
        optima: Sequence[Sequence[tuple[int, ...]]],
    ) -> None:
        """Take a context of TensorRT with its first profile.

        Args:
            needed: the bytes of scratch memory that it needs; None lets it tell by shape.
            optima: for each profile, the shapes of the inputs that it was tuned for.
        """
        self._trt = trt
        self._context = context
        self._inputs, self._outputs = inputs, outputs
        self._scratch = scratch
        self._by_shape, self._needed = needed is None, needed or 0
        self._block: torch.Tensor | None = None
        self._optima = optima
        self._profile = 0
        self._shapes: list[torch.Size] | None = None
        self._result_shapes: list[tuple[int, ...]] = []

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        device, context = self._scratch.block.device, self._context
        tensors = [
            tensor.contiguous(memory_format=spec.memory_format)
            for spec, tensor in zip(self._inputs, tensors, strict=True)
        ]
        shapes = [tensor.shape for tensor in tensors]
        if shapes != self._shapes:
            self._set_shapes(shapes)
        # Another context may have made the block grow since.
        block = self._scratch.at_least(self._needed)
        if block is not self._block:
            _give_scratch(context, block)
            self._block = block
        for spec, tensor in zip(self._inputs, tensors, strict=True):
            context.set_tensor_address(spec.name, tensor.data_ptr())
        results = list(map(self._result, self._outputs, self._result_shapes))
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise EngineError("TensorRT could not enqueue the engine; its log says why")
        return tuple(
            result if isinstance(result, torch.Tensor) else result.tensor(spec.dtype)
            for spec, result in zip(self._outputs, results, strict=True)
        )

    def _result(self, spec: TensorSpec, shape: tuple[int, ...]) -> Any:
        """Return memory for one output, or an allocator if its size depends on data."""
        if min(shape, default=0) < 0:
            allocator = output_allocator(self._trt, self._scratch.block.device)
            if not self._context.set_output_allocator(spec.name, allocator):
                raise EngineError(f"TensorRT took no allocator for {spec.name}")
            return allocator
        result = torch.empty(
            shape,
            dtype=spec.dtype,
            device=self._scratch.block.device,
            memory_format=spec.memory_format,
        )
        self._context.set_tensor_address(spec.name, result.data_ptr())
        return result

    def _set_shapes(self, shapes: list[torch.Size]) -> None:
        self._shapes = None
        self._choose_profile(shapes)
        for spec, shape in zip(self._inputs, shapes, strict=True):
            if not spec.is_static and not self._context.set_input_shape(spec.name, tuple(shape)):
                raise EngineError(f"TensorRT refused {spec.name} of shape {tuple(shape)}")
        if self._by_shape:
            # TensorRT divides the memory anew for each shape, so it must get the block once more.
            size = self._context.update_device_memory_size_for_shapes()
            self._needed, self._block = max(_SMALLEST_SCRATCH, size), None
        self._result_shapes = [
            spec.low if spec.is_static else tuple(self._context.get_tensor_shape(spec.name))
            for spec in self._outputs
        ]
        self._shapes = shapes

    def _choose_profile(self, shapes: Sequence[torch.Size]) -> None:
        """Take the profile that was tuned for the nearest shapes."""
        if len(self._optima) < 2:
            return
        distances = [_distance(shapes, optimum) for optimum in self._optima]
        profile = distances.index(min(distances))
        if profile != self._profile:
            # Until TensorRT has taken it, no other may count as taken.
            self._profile = -1
            stream = torch.cuda.current_stream(self._scratch.block.device)
            _set_profile(self._context, profile, stream)
            # CUDA graphs are recorded on other streams, and find the profile in place.
            stream.synchronize()
            self._profile = profile


def _optima(engine: Any, inputs: Sequence[TensorSpec]) -> list[list[tuple[int, ...]]]:
    """Return for each profile the shapes of the dynamic inputs that it was tuned for."""
    dynamic = [spec for spec in inputs if not spec.is_static]
    if not dynamic:
        return []
    return [
        [
            tuple(engine.get_tensor_profile_shape(spec.name, profile)[1]) if spec in dynamic else ()
            for spec in inputs
        ]
        for profile in range(engine.num_optimization_profiles)
    ]


def _distance(shapes: Sequence[Sequence[int]], optimum: Sequence[Sequence[int]]) -> float:
    """Return how far shapes are from those that a profile was tuned for; factors count."""
    pairs = [
        pair
        for shape, best in zip(shapes, optimum, strict=True)
        if best
        for pair in zip(shape, best, strict=True)
    ]
    return sum(abs(math.log(size / best)) for size, best in pairs)


def _set_profile(context: Any, profile: int, stream: Any) -> None:
    try:
        chosen = context.set_optimization_profile_async(profile, stream.cuda_stream)
    except RuntimeError as error:
        raise EngineError(f"a context cannot have profile {profile}: {error}") from error
    if not chosen:
        raise EngineError(f"a context cannot have profile {profile}; TensorRT's log says why")


def _require_channels_last(trt: ModuleType, engine: Any, name: str) -> None:
    """Refuse a plan that would read or write a tensor's memory in another order than torch."""
    found = engine.get_tensor_format(name)
    if found != trt.TensorFormat.HWC8:
        raise EngineError(f"the plan has {name} in the format {found}, expected HWC8")


def _scratch_bytes(engine: Any) -> int:
    newer = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if newer is None else newer)


def _create(trt: ModuleType, engine: Any) -> Any:
    """Return a context without memory for activations, which the caller provides."""
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is not None:
        return engine.create_execution_context(strategies.USER_MANAGED)
    return engine.create_execution_context_without_device_memory()


def _give_scratch(context: Any, block: torch.Tensor) -> None:
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(block.data_ptr(), block.nbytes)
    else:
        context.device_memory = block.data_ptr()
