"""Turns a Dynamo graph, a module or a function into a functional ATen GraphModule.

Operators that have a converter stay whole, composite ones included (linear, layer_norm,
scaled_dot_product_attention ...); all other composites are decomposed. Weights are `get_attr`
nodes, every node has `meta["val"]`, and the output is a flat tuple or the module's own pytree.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._export.utils import _is_preservable_cia_op
from torch._guards import TracingContext, detect_fake_mode
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import _PyTreeCodeGen
from torch.utils._sympy.value_ranges import ValueRanges

from ..announce import announced
from ..errors import CaptureError
from ..graph.composites import composites_whole
from ..graph.layouts import Layouts
from ..graph.pooled_sizes import pooled_sizes_without_guards
from ..graph.provenance import set_module_prefix
from ..graph.specs import Call
from ..registry import registered
from ..serialization.tree_data import SHADOWED
from .frozen_weights import FrozenGraph
from .quiet_export import silent_if_it_fails
from .size_ranges import restore_ranges
from .torch_message import message_of
from .write_conflicts import Writes

__all__ = ["capture_dynamo", "capture_module", "require_inference", "trace"]


def capture_module(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    path: str = "",
) -> GraphModule:
    """Return the graph that `torch.export` makes of a module; it is called like the module.

    Args:
        args, kwargs: example arguments, any pytrees of tensors.
        dynamic_shapes: as `torch.export.export` takes it; None makes every size static.
        path: the path of the module in its model, for the report.

    Raises:
        CaptureError: the module is in training mode, an input requires grad, or export failed.
    """
    require_inference(model, (args, kwargs))
    doing = f"capturing {path or 'the model'} ({type(model).__name__})"
    with announced(f"{doing}, with sizes that vary" if dynamic_shapes else doing):
        gm, ranges = _export(model, args, kwargs or {}, dynamic_shapes)
        restore_ranges(gm, model, Call(args, kwargs or {}), ranges, dynamic_shapes)
    set_module_prefix(gm, path)
    return gm


@contextmanager
def _no_hooks_left_behind() -> Iterator[None]:
    """Remove the hooks on assigned buffers that torch 2.11 leaves behind if an export fails."""
    hooks = torch.nn.modules.module._global_buffer_registration_hooks
    before = set(hooks)
    try:
        yield
    finally:
        for number in set(hooks) - before:
            del hooks[number]


def _export(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any
) -> tuple[GraphModule, Mapping[Any, ValueRanges[Any]]]:
    """Return the graph, and the ranges of its symbols."""
    try:
        with (
            torch.no_grad(),
            silent_if_it_fails(),
            _no_hooks_left_behind(),
            pooled_sizes_without_guards(),
            warnings.catch_warnings(),
        ):
            # Assigned attributes are harmless unless the next call reads them, which `repeatable`
            # refuses.
            warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
            program = torch.export.export(
                model, tuple(args), dict(kwargs), dynamic_shapes=dynamic_shapes, strict=False
            )
            program = program.run_decompositions(_composite_decompositions())
            gm = program.module(check_guards=False)
    except Exception as error:
        raise CaptureError(
            f"torch.export could not capture {type(model).__name__}: {message_of(error)}"
        ) from error
    assert isinstance(gm, GraphModule)
    _rename_arguments(gm, kwargs)
    return gm, program.range_constraints


def _rename_arguments(gm: GraphModule, kwargs: Mapping[str, Any]) -> None:
    """Rename arguments with names that the graph's source code, which torch writes, uses itself.

    Raises:
        CaptureError: such an argument is passed by keyword, so it cannot be renamed.
    """
    codegen = gm.graph._codegen
    assert isinstance(codegen, _PyTreeCodeGen)
    names = codegen.pytree_info.orig_args
    if shadowed := SHADOWED & kwargs.keys():
        raise CaptureError(
            f"the argument {min(shadowed)!r} has a name that the source code of torch's graphs "
            f"uses: give it another one in forward"
        )
    for node in gm.graph.find_nodes(op="placeholder"):
        node.target = node.name if node.target in SHADOWED else node.target
    if SHADOWED.intersection(names):
        renamed = [_unused(name, names) if name in SHADOWED else name for name in names]
        info = codegen.pytree_info._replace(orig_args=renamed)
        gm.graph.set_codegen(_PyTreeCodeGen(info))
        gm.recompile()


def _unused(name: str, names: Sequence[str]) -> str:
    while name in (*SHADOWED, *names):
        name += "_"
    return name


def capture_dynamo(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    compile_aten: Callable[[GraphModule], Callable[..., Any]],
    check_weights: str = "versions",
) -> Callable[..., Any]:
    """Lower the graph that Dynamo hands to a backend, and compile it with `compile_aten`.

    Compilation is a callback here, and not the next stage, because AOTAutograd wraps the compiled
    graph: it replays input mutations and output aliases.

    Args:
        gm, example_inputs: as Dynamo passes them; parameters and buffers are among the inputs.
        compile_aten: takes the functional ATen graph, with weights as `get_attr`, and returns a
            callable that maps the remaining inputs to a tuple.
        check_weights: as in `Settings`.

    Raises:
        CaptureError: AOTAutograd could not lower the graph.
    """
    inner = [*gm.parameters(), *gm.buffers()]
    values = [*inner, *example_inputs]
    static = {*range(len(inner)), *(len(inner) + i for i in _static_inputs(gm, example_inputs))}
    # This is read here because gradients are off during lowering.
    wants_gradients = torch.is_grad_enabled() and any(
        isinstance(value, torch.Tensor) and value.requires_grad for value in values
    )
    frozen: list[FrozenGraph] = []
    guards: list[_Guard] = []

    def keep(aten_gm: GraphModule, lowered_inputs: Sequence[Any]) -> FrozenGraph:
        if len(lowered_inputs) != len(values):
            raise CaptureError(
                f"AOTAutograd changed the inputs from {len(values)} to {len(lowered_inputs)}"
            )
        written, returned = _written_and_returned()
        guards.append(_Guard(aten_gm, len(inner), static, written))
        if wants_gradients:
            _require_no_training(aten_gm, bool(static & written))
        weights = {i: values[i] for i in sorted(static - written - returned)}
        frozen.append(FrozenGraph(aten_gm, weights, compile_aten, check_weights))
        return frozen[-1]

    compiled = _lower(gm, example_inputs, keep)
    for graph in frozen:
        graph.compile()
    if not any(guard.is_needed for guard in guards):
        return compiled

    def guarded(*inputs: Any) -> Any:
        conflicts = (guard.conflict(inputs) for guard in guards)
        return (gm.forward if any(conflicts) else compiled)(*inputs)

    return guarded


class _Guard:
    """Finds calls that Dynamo's guards let pass, but that a graph would answer otherwise.

    Dynamo compares whether inputs share memory only where they do in its example, and no storage
    offsets.
    """

    def __init__(
        self, aten_gm: GraphModule, inner: int, static: Collection[int], written: Collection[int]
    ) -> None:
        """Note what the graph writes to and whether it reads by strides.

        Args:
            inner: how many of its first inputs Dynamo does not pass.
            static, written: positions of its inputs. Static ones, which are weights, count only
                if they are written: to ask hundreds of them takes longer than a small graph.
        """
        self._inner = inner
        self._unasked = frozenset(static) - frozenset(written)
        self._writes = Writes(sorted(written), (), ()) if written else None
        self._layouts = Layouts.of(aten_gm)

    @property
    def is_needed(self) -> bool:
        return self._writes is not None or self._layouts is not None

    def conflict(self, inputs: Sequence[Any]) -> str | None:
        values = [*[None] * self._inner, *inputs]
        asked = [None if i in self._unasked else value for i, value in enumerate(values)]
        if self._writes is not None and (reason := self._writes.conflict(asked)):
            return reason
        return None if self._layouts is None else self._layouts.mismatch(asked)


def _lower(
    gm: GraphModule, example_inputs: Sequence[Any], compiler: Callable[..., Any]
) -> Callable[..., Any]:
    """Run AOTAutograd for inference, and compile the graph that it makes with `compiler`."""
    # The import takes most of a second, which a start from an artifact does not need.
    # Importing Dynamo takes two seconds, which loading a saved model does not need.
    from torch._dynamo.backends.common import aot_autograd
    from torch._dynamo.exc import RestartAnalysis

    lower = aot_autograd(fw_compiler=compiler, inference_compiler=compiler, decompositions={})
    try:
        doing = f"lowering a graph of Dynamo's with {len(gm.graph.nodes)} nodes"
        with torch.no_grad(), composites_whole(), announced(doing):
            compiled: Callable[..., Any] = lower(gm, list(example_inputs))
    except (CaptureError, RestartAnalysis):
        # With RestartAnalysis, Dynamo asks itself to trace the function again.
        raise
    except Exception as error:
        raise CaptureError(f"AOTAutograd could not lower the graph: {message_of(error)}") from error
    return compiled


def trace(
    function: Callable[..., Any], inputs: Sequence[torch.Tensor], *, dynamic: bool = False
) -> GraphModule:
    """Return the graph of `function(*inputs)`; tensors in its closure become weights.

    Args:
        dynamic: make every input dimension larger than 1 symbolic.
    """
    with torch.no_grad(), composites_whole():
        gm = make_fx(
            function,
            tracing_mode="symbolic" if dynamic else "fake",
            _allow_non_fake_inputs=True,
        )(*inputs)
    _value_attributes(gm)
    output = gm.graph.output_node()
    if isinstance(output.args[0], Node):
        output.args = ((output.args[0],),)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return gm


def require_inference(model: torch.nn.Module, inputs: Any) -> None:
    """Refuse a model in training mode, nested inputs, and inputs that require grad.

    Raises:
        CaptureError: one of these; the message says what to do instead.
    """
    training = next((name for name, m in model.named_modules() if m.training), None)
    if training is not None:
        raise CaptureError(
            f"{training or type(model).__name__} is in training mode: call model.eval() first"
        )
    for leaf in torch.utils._pytree.tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.is_nested:
            raise CaptureError(
                "an input is a nested tensor, which engines do not have: give a padded one, "
                "torch.nested.to_padded_tensor(input, 0.0), and a mask"
            )
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad:
            raise CaptureError(
                f"an input of shape {tuple(leaf.shape)} requires grad: fxtrt compiles for "
                f"inference; pass input.detach()"
            )


def _static_inputs(gm: GraphModule, example_inputs: Sequence[Any]) -> list[int]:
    """Return the positions of parameters and buffers among a Dynamo graph's inputs."""
    placeholders = gm.graph.find_nodes(op="placeholder")
    return [
        i
        for i, (node, value) in enumerate(zip(placeholders, example_inputs, strict=True))
        if isinstance(value, torch.nn.Parameter)
        or node.meta.get("tensor_dict", {}).get("_dynamo_static_input_type")
    ]


def _require_no_training(aten_gm: GraphModule, writes_buffers: bool) -> None:
    """Refuse a graph that is being trained; warn that any other returns no gradients.

    A graph does not say whether it is being trained. It is taken for trained if gradients are
    wanted and it updates statistics or draws random numbers.
    """
    draws = any(
        isinstance(node.target, OpOverload)
        and torch.Tag.nondeterministic_seeded in node.target.tags
        for node in aten_gm.graph.nodes
    )
    if writes_buffers or draws:
        raise CaptureError("the graph is being trained: call model.eval() for inference")
    warnings.warn(
        "fxtrt compiles for inference: the outputs carry no gradients. Call the model under "
        "torch.no_grad() or torch.inference_mode().",
        stacklevel=2,
    )


def _written_and_returned() -> tuple[set[int], set[int]]:
    """Return the positions of inputs that the graph writes to, and of those that it returns."""
    metadata = TracingContext.get().fw_metadata
    assert metadata is not None
    written = {i for i, info in enumerate(metadata.input_info) if info.mutates_data}
    returned = {info.base_idx for info in metadata.output_info if info.base_idx is not None}
    return written, returned


def _composite_decompositions() -> dict[Any, Callable[..., Any]]:
    """Return decompositions of the composite operators that have no converter."""
    table = torch.export.default_decompositions()
    return {
        target: table[target]
        for target in list(table)
        if isinstance(target, OpOverload)
        and target not in registered()
        and _is_preservable_cia_op(target)
    }


def _value_attributes(gm: GraphModule) -> None:
    """Give every `get_attr` its `meta["val"]`, which `make_fx` leaves out."""
    nodes = list(gm.graph.nodes)
    fake_mode = detect_fake_mode([n.meta["val"] for n in nodes if "val" in n.meta])
    for node in nodes:
        if node.op == "get_attr" and "val" not in node.meta:
            value = getattr(gm, str(node.target))
            assert fake_mode is not None
            node.meta["val"] = fake_mode.from_tensor(value, static_shapes=True)
