"""Fold batch norms, and per-channel products and sums, into the convolution before them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import _disable_current_modes

from ..graph.aliases import Aliases, erase_dead
from ..graph.metadata import fake_mode_of, same_metadata
from ..graph.weights import add_weight, weight
from ..registry import arguments_of

aten = torch.ops.aten

_CONVOLUTIONS = frozenset(
    {
        aten.conv1d.default,
        aten.conv1d.padding,
        aten.conv2d.default,
        aten.conv2d.padding,
        aten.conv3d.default,
        aten.conv3d.padding,
        aten.convolution.default,
    }
)
_TRANSPOSED = frozenset(
    {
        aten.conv_transpose1d.default,
        aten.conv_transpose2d.input,
        aten.conv_transpose3d.input,
    }
)
_BATCH_NORMS = frozenset(
    {
        aten._batch_norm_no_update.default,
        aten._native_batch_norm_legit.default,
        aten._native_batch_norm_legit_no_training.default,
        aten.batch_norm.default,
        aten.native_batch_norm.default,
    }
)


_Constant = Callable[[Any], "torch.Tensor | None"]


@dataclass(frozen=True)
class _Affine:
    """The map x * scale + shift, with one float64 number per channel.

    key: what the numbers are made from.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    key: tuple[Any, ...]


@dataclass(frozen=True)
class _Step:
    """A call that is affine per channel, and the node that holds its result."""

    call: Node
    result: Node
    affine: _Affine


@dataclass(frozen=True)
class _Convolution:
    """A convolution with weights that may be replaced."""

    node: Node
    arguments: dict[str, Any]
    weight: torch.Tensor
    bias: torch.Tensor | None

    @property
    def groups(self) -> int:
        return int(self.arguments["groups"])

    @property
    def is_transposed(self) -> bool:
        return self.node.target in _TRANSPOSED or bool(self.arguments.get("transposed"))

    @property
    def channels(self) -> int:
        return self.weight.shape[1] * self.groups if self.is_transposed else self.weight.shape[0]

    @property
    def key(self) -> tuple[Any, ...]:
        """Return what the new weights depend on, on the convolution's side."""
        bias = self.arguments["bias"]
        source = bias.target if bias is not None else None
        return (self.arguments["weight"].target, source, self.groups, self.is_transposed)


def fold_batch_norm(gm: GraphModule) -> bool:
    """`batch_norm(convolution(x, w, b))` -> `convolution(x, w2, b2)`.

    A frozen batch norm in affine form, `convolution(x, w) * scale + shift` with constants per
    channel, folds too. The new weights are computed in float64 and stored in the old one's dtype;
    where that cannot hold them, the graph stays. Convolutions that shared their weights and norms
    share what replaces them.
    """
    aliases = Aliases(gm)
    mode = fake_mode_of(gm)
    made: dict[Any, tuple[Node, Node]] = {}

    def constant(node: Any) -> torch.Tensor | None:
        """Return the tensor of a weight that nothing writes to, or None."""
        fixed = isinstance(node, Node) and not aliases.is_written(node)
        return weight(gm, node) if fixed else None

    def fold(node: Node) -> bool:
        convolution = _convolution(node, constant)
        steps = list(_steps(convolution, constant)) if convolution else []
        if convolution is None or not steps:
            return False
        key = (convolution.key, *(step.affine.key for step in steps))
        if key not in made:
            tensors = _fold(convolution, [step.affine for step in steps])
            if tensors is None:
                return False
            with gm.graph.inserting_before(node):
                made[key] = (
                    add_weight(gm, tensors[0], f"folded_{node.name}_weight", mode),
                    add_weight(gm, tensors[1], f"folded_{node.name}_bias", mode),
                )
        _rewire(convolution, made[key], steps)
        return True

    with torch.no_grad(), _disable_current_modes():
        changed = False
        for node in list(gm.graph.nodes):
            changed |= fold(node)
        return changed


def _convolution(node: Node, constant: _Constant) -> _Convolution | None:
    if node.op != "call_function" or node.target not in _CONVOLUTIONS | _TRANSPOSED:
        return None
    assert isinstance(node.target, OpOverload)
    arguments = arguments_of(node)
    weights, bias = constant(arguments["weight"]), constant(arguments["bias"])
    result = node.meta["val"]
    if weights is None or (bias is None and arguments["bias"] is not None):
        return None
    # An unbatched convolution has its channels in front, where no batch norm reads them.
    if weights.dtype != result.dtype or weights.dim() != result.dim():
        return None
    return _Convolution(node, arguments, weights, bias)


def _steps(convolution: _Convolution, constant: _Constant) -> Iterator[_Step]:
    """Yield the affine calls after a convolution, each the only reader of the one before it."""
    last = convolution.node
    while step := _step(last, convolution.channels, constant):
        if not same_metadata(step.result.meta["val"], convolution.node.meta["val"]):
            return
        yield step
        last = step.result


def _step(last: Node, channels: int, constant: _Constant) -> _Step | None:
    if len(last.users) != 1:
        return None
    (user,) = last.users
    if user.target in _BATCH_NORMS:
        result = user if user.target is aten.batch_norm.default else _first_output(user)
        affine = _batch_norm(user, last, channels, constant)
    else:
        result, affine = user, _product_or_sum(user, last, channels, constant)
    return _Step(user, result, affine) if result and affine else None


def _first_output(norm: Node) -> Node | None:
    """Return the first output if it is the only one that is read."""
    read = [user for user in norm.users if user.users]
    if len(read) != 1 or read[0].target is not operator.getitem:
        return None
    return read[0] if read[0].args[1] == 0 else None


def _batch_norm(norm: Node, last: Node, channels: int, constant: _Constant) -> _Affine | None:
    assert isinstance(norm.target, OpOverload)
    arguments = arguments_of(norm)
    if arguments["input"] is not last or arguments.get("training"):
        return None
    names = ("weight", "bias", "running_mean", "running_var")
    nodes = [arguments[name] for name in names]
    tensors = [constant(node) for node in nodes]
    gamma, beta, mean, var = (t if t is None else t.double() for t in tensors)
    absent = [node is None for node in nodes]
    if mean is None or var is None or absent != [t is None for t in tensors]:
        return None
    if any(t is not None and tuple(t.shape) != (channels,) for t in tensors):
        return None
    scale = torch.rsqrt(var + arguments["eps"])
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    sources = (node.target if node else None for node in nodes)
    return _Affine(scale, shift, ("batch_norm", arguments["eps"], *sources))


def _product_or_sum(call: Node, last: Node, channels: int, constant: _Constant) -> _Affine | None:
    if call.target not in (aten.mul.Tensor, aten.add.Tensor) or call.kwargs.get("alpha", 1) != 1:
        return None
    other = call.args[1] if call.args[0] is last else call.args[0]
    tensor = constant(other)
    if tensor is None or not _is_per_channel(tensor, last.meta["val"].dim(), channels):
        return None
    assert isinstance(other, Node)
    values = tensor.double().reshape(-1).expand(channels)
    key = (str(call.target), other.target)
    if call.target is aten.mul.Tensor:
        return _Affine(values, torch.zeros_like(values), key)
    return _Affine(torch.ones_like(values), values, key)


def _is_per_channel(tensor: torch.Tensor, rank: int, channels: int) -> bool:
    if tensor.dim() > rank or tensor.is_complex():
        return False
    shape = [1] * (rank - tensor.dim()) + list(tensor.shape)
    others = shape[:1] + shape[2:]
    return shape[1] in (1, channels) and all(size == 1 for size in others)


def _fold(
    convolution: _Convolution, affines: Sequence[_Affine]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the convolution's new weight and bias, or None if its dtype cannot hold them."""
    old = convolution.weight
    scale = torch.ones(convolution.channels, dtype=torch.float64, device=old.device)
    shift = torch.zeros_like(scale) if convolution.bias is None else convolution.bias.double()
    for affine in affines:
        factor = affine.scale.to(old.device)
        scale, shift = scale * factor, shift * factor + affine.shift.to(old.device)
    exact = old.double() * _per_weight(convolution, scale)
    new, bias = exact.to(old.dtype), shift.to(old.dtype)
    if not (_is_finite(new) and _is_finite(bias)):
        return None
    if old.dtype.itemsize < 4:
        rounding = torch.finfo(old.dtype).eps * exact.abs().sum()
        if (new.double() - exact).abs().sum() > rounding:
            return None
    return new, bias


def _is_finite(tensor: torch.Tensor) -> bool:
    # NaN comes out of aminmax too, in a tenth of the time of isfinite().
    return all(math.isfinite(bound.item()) for bound in tensor.aminmax())


def _per_weight(convolution: _Convolution, scale: torch.Tensor) -> torch.Tensor:
    """Return `scale`, which is per output channel, at the weight's rank.

    A convolution's weight is (out, in / groups, ...), a transposed one's (in, out / groups, ...)
    with the inputs of each group together.
    """
    old, groups = convolution.weight, convolution.groups
    kernel = (1,) * (old.dim() - 2)
    if not convolution.is_transposed:
        return scale.reshape(-1, 1, *kernel)
    per_group = old.shape[0] // groups
    rows = scale.reshape(groups, 1, -1).expand(groups, per_group, -1)
    return rows.reshape(old.shape[0], -1, *kernel)


def _rewire(convolution: _Convolution, weights: tuple[Node, Node], steps: Sequence[_Step]) -> None:
    """Give the convolution its new weights and the place of the last step."""
    node = convolution.node
    inputs = [n for step in steps for n in step.call.all_input_nodes] + node.all_input_nodes
    steps[-1].result.replace_all_uses_with(node)
    for step in reversed(steps):
        for output in list(step.call.users):
            node.graph.erase_node(output)
        node.graph.erase_node(step.call)
    new = {**convolution.arguments, "weight": weights[0], "bias": weights[1]}
    node.args, node.kwargs = tuple(new.values()), {}
    erase_dead(n for n in inputs if n.op == "get_attr")
