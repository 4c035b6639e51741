"""Give converters the network, the node, and the operations that all families share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from ..engines.features import Features
from ..engines.network import Network
from ..engines.weak_typing import settle_types, type_of
from ..errors import ConversionError
from ..graph.sizes import Size, is_static
from ..registry import arguments_of
from .shape_layers import ShapeLayers
from .shuffles import Shuffles

__all__ = ["Context", "Scalar", "TensorLike"]

Scalar = bool | int | float | torch.SymInt
TensorLike = Any
"""An ITensor, or a torch.Tensor that holds a weight."""


class Context:
    """The conversion of one cluster, seen from the node that is being converted."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.shapes = ShapeLayers(network)
        self.views = Shuffles(network)
        self.node: Node
        self._output: Any = None
        self._settled = 0
        self._fakes: Mapping[str, Any] = {}
        self._constants: dict[tuple[Any, ...], Any] = {}

    @property
    def net(self) -> Any:
        """Return the INetworkDefinition under construction."""
        return self.network.definition

    @property
    def trt(self) -> ModuleType:
        """Return the TensorRT module that `net` came from."""
        return self.network.trt

    @property
    def features(self) -> Features:
        return self.network.features

    def enter(self, node: Node, parameters: Mapping[str, str]) -> None:
        """Make `node` the one that is being converted.

        Args:
            parameters: the names that the node's converter has for the schema's arguments.
        """
        self.node = node
        self._output = node.meta["val"]
        arguments = arguments_of(node)
        self._fakes = {parameters[name]: _fake(value) for name, value in arguments.items()}

    @property
    def target(self) -> OpOverload:
        """Return the overload that the node calls."""
        assert isinstance(self.node.target, OpOverload)
        return self.node.target

    def fake(self, name: str) -> Any:
        """Return the converter's argument `name`, with a FakeTensor for each tensor."""
        return self._fakes[name]

    @property
    def output(self) -> Any:
        """Return the node's FakeTensor, or a tuple of them if the node has several outputs."""
        return self._output

    @contextmanager
    def giving(self, output: Any) -> Iterator[None]:
        """Replace `output` for a while, for a converter that computes in another dtype."""
        before, self._output = self._output, output
        try:
            yield
        finally:
            self._output = before

    def result_type(self, *names: str) -> torch.dtype:
        """Return the dtype that torch computes in for the arguments `names` (tensors and
        scalars)."""
        first, *rest = (_for_promotion(self._fakes[name]) for name in names)
        dtype = torch.result_type(first, rest[0]) if rest else first.dtype
        for other in rest[1:]:
            dtype = torch.promote_types(dtype, torch.result_type(first, other))
        return dtype

    def dtype(self, x: Any) -> torch.dtype:
        """Return the torch dtype of an ITensor."""
        self.settle()
        return self.features.to_torch(type_of(self.network, x))

    def settle(self) -> None:
        """Settle the types of all layers so far, which TensorRT 8.6 leaves open."""
        if self.features.weakly_typed:
            settle_types(self.network, self._settled)
            self._settled = self.net.num_layers

    def tensor(self, value: TensorLike) -> Any:
        """Return the ITensor of `value`. A weight becomes a constant layer, once."""
        if not isinstance(value, torch.Tensor):
            return value
        key = (id(value),)
        if key not in self._constants:
            self._constants[key] = self._add_constant(value)
            self.network.kept.append(value)
        return self._constants[key]

    def constant(self, value: Any, dtype: torch.dtype) -> Any:
        """Add a constant of `dtype` from a number or nested numbers, in their shape."""
        return self._add_constant(torch.tensor(value, dtype=dtype))

    def scalar(self, value: bool | int | float, dtype: torch.dtype, rank: int = 0) -> Any:
        """Return a one-element constant of shape (1,) * rank, shared between its users."""
        key = (repr(value), dtype, rank)
        if key not in self._constants:
            self._constants[key] = self._add_constant(torch.full((1,) * rank, value, dtype=dtype))
        return self._constants[key]

    def weights(self, value: torch.Tensor) -> Any:
        """Return `value` as the weights argument of an `add_*` method (any dtype but bfloat16)."""
        array = value.detach().cpu().contiguous().numpy()
        self.network.kept.append(array)
        return array

    def cast(self, x: Any, dtype: torch.dtype) -> Any:
        """Cast `x` to `dtype`; return `x` itself if it has that dtype."""
        if self.dtype(x) == dtype:
            return x
        return self.net.add_cast(x, self.features.to_trt(dtype)).get_output(0)

    def operands(self, *values: Any, dtype: torch.dtype, rank: int | None = None) -> list[Any]:
        """Return ITensors of one dtype and one rank (the largest among `values`, or `rank`).

        Each value is an ITensor, a weight, a Python number or a SymInt. TensorRT broadcasts
        dimensions of size 1 but never the rank, so missing leading dimensions are added here.
        """
        ranks = [len(value.shape) for value in values if not _is_number(value)]
        rank = max([*ranks, 0]) if rank is None else rank
        return [self._operand(value, dtype, rank) for value in values]

    def _operand(self, value: Any, dtype: torch.dtype, rank: int) -> Any:
        if isinstance(value, torch.SymInt) and not is_static(value):
            size = self.cast(self.shapes.size(value), dtype)
            return self.reshape(size, (1,) * rank) if rank != 1 else size
        if _is_number(value) or isinstance(value, torch.Tensor):
            self._require_finite(value, dtype)
        if _is_number(value):
            return self.scalar(value, dtype, rank)
        if isinstance(value, torch.Tensor):
            return self._weight(value, dtype, rank)
        return self.raise_rank(self.cast(value, dtype), rank)

    def _require_finite(self, value: float | torch.Tensor, dtype: torch.dtype) -> None:
        if self.features.infinite_operands or dtype != torch.float32:
            return
        is_one = not isinstance(value, torch.Tensor) or value.numel() == 1
        if is_one and math.isinf(value):
            raise ConversionError(f"{self.features.version} makes an infinite operand finite")

    def _weight(self, value: torch.Tensor, dtype: torch.dtype, rank: int) -> Any:
        """Cast and reshape a weight on the host, so that no layer has to do it."""
        key = (id(value), dtype, rank)
        if key not in self._constants:
            shape = (1,) * (rank - value.dim()) + tuple(value.shape)
            self._constants[key] = self._add_constant(value.detach().to(dtype).reshape(shape))
            self.network.kept.append(value)
        return self._constants[key]

    def raise_rank(self, x: Any, rank: int) -> Any:
        """Add leading dimensions of size 1 to `x`, up to `rank`."""
        missing = rank - len(x.shape)
        if missing <= 0:
            return x
        layer = self.net.add_shuffle(x)
        if missing == rank:
            layer.reshape_dims = (1,) * rank
        elif list(x.shape).count(-1) <= 1:
            layer.reshape_dims = (1,) * missing + tuple(x.shape)
        else:
            layer.set_input(1, self._concat_shape(missing, x))
        return layer.get_output(0)

    def _concat_shape(self, missing: int, x: Any) -> Any:
        ones = self.constant([1] * missing, self.features.shape_dtype)
        layer = self.net.add_concatenation([ones, self.net.add_shape(x).get_output(0)])
        layer.axis = 0
        return layer.get_output(0)

    def reshape(self, x: Any, sizes: Sequence[Size], transpose: Sequence[int] | None = None) -> Any:
        """Transpose `x` if `transpose` is given, then reshape it to `sizes`.

        At most one of the sizes is -1. They are computed in Python where they are known.
        """
        layer = self.net.add_shuffle(x)
        if transpose is not None:
            layer.first_transpose = tuple(transpose)
        known = [int(size) if is_static(size) else -1 for size in sizes]
        if known.count(-1) <= 1 and 0 not in known:
            layer.reshape_dims = tuple(known)
        else:
            layer.zero_is_placeholder = False
            layer.set_input(1, self.shapes.sizes(sizes))
        return layer.get_output(0)

    def permute(self, x: Any, dims: Sequence[int]) -> Any:
        """Put the dimensions of `x` into the order `dims`."""
        layer = self.net.add_shuffle(x)
        layer.first_transpose = tuple(dims)
        return layer.get_output(0)

    def slice(
        self,
        x: Any,
        start: Sequence[Size],
        sizes: Sequence[Size],
        stride: Sequence[int] | None = None,
        mode: str | None = None,
        fill: Any = None,
    ) -> Any:
        """Add a SLICE of `x`: `sizes` elements from `start` on, `stride` apart.

        A window that leaves `x` needs a `mode`, a member of `trt.SampleMode`; FILL takes `fill`,
        a zero-dimensional ITensor of the dtype of `x`.
        """
        stride = stride or (1,) * len(start)
        if all(is_static(size) for size in [*start, *sizes]):
            layer = self.net.add_slice(x, [int(s) for s in start], [int(s) for s in sizes], stride)
        else:
            rank = len(start)
            layer = self.net.add_slice(x, (0,) * rank, (1,) * rank, stride)
            layer.set_input(1, self.shapes.sizes(start))
            layer.set_input(2, self.shapes.sizes(sizes))
        if mode is not None:
            layer.mode = getattr(self.trt.SampleMode, mode)
        if fill is not None:
            layer.set_input(4, fill)
        return layer.get_output(0)

    def elementwise(self, operation: str, a: Any, b: Any) -> Any:
        """Add an ELEMENTWISE with `trt.ElementWiseOperation.<operation>`; see `operands`."""
        op = getattr(self.trt.ElementWiseOperation, operation)
        return self.net.add_elementwise(a, b, op).get_output(0)

    def unary(self, operation: str, x: Any) -> Any:
        """Add a UNARY with `trt.UnaryOperation.<operation>`."""
        return self.net.add_unary(x, getattr(self.trt.UnaryOperation, operation)).get_output(0)

    def activation(
        self, kind: str, x: Any, alpha: float | None = None, beta: float | None = None
    ) -> Any:
        """Add an ACTIVATION with `trt.ActivationType.<kind>`."""
        layer = self.net.add_activation(x, getattr(self.trt.ActivationType, kind))
        if alpha is not None:
            layer.alpha = alpha
        if beta is not None:
            layer.beta = beta
        return layer.get_output(0)

    def _add_constant(self, value: torch.Tensor) -> Any:
        value = value.detach().cpu().contiguous()
        if value.dtype == torch.float64:
            value = value.float()
        if value.dtype not in self.features.dtypes and value.dtype == torch.int64:
            value = value.int()
        if value.dtype == torch.bfloat16:
            return self._add_bfloat16(value)
        array = value.numpy()
        self.network.kept.append(array)
        return self.net.add_constant(tuple(value.shape), array).get_output(0)

    def _add_bfloat16(self, value: torch.Tensor) -> Any:
        """Add a bfloat16 constant by pointer, since numpy has no bfloat16; keep the tensor for
        readers."""
        dtype = self.features.to_trt(value.dtype)
        weights = self.trt.Weights(dtype, value.data_ptr(), value.numel())
        layer = self.net.add_constant(tuple(value.shape), weights)
        layer.name = f"bfloat16 constant {len(self.network.weights)}"
        self.network.weights[layer.name] = value
        return layer.get_output(0)


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, torch.SymInt))


def _fake(value: Any) -> Any:
    return torch.fx.node.map_arg(value, lambda node: node.meta.get("val"))


def _for_promotion(value: Any) -> Any:
    """Return the Python int that a SymInt promotes like."""
    return 1 if isinstance(value, torch.SymInt) else value
