"""Calls a stitched graph: each call takes a slot of the model, and may replay a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..engines.base import Engine
from ..errors import EngineError
from ..graph.ambient import is_transformed
from ..graph.plain import why_unreadable
from ..graph.sizes import is_unbacked
from ..settings import Settings
from .cuda_graphs import GraphRunner, NotRecorded
from .engine_module import EngineModule
from .slot import Slot
from .slots import Slots

__all__ = ["Observer", "StitchedCall", "engine_modules", "serve"]

log = logging.getLogger(__name__)

Observer = Callable[[Node, Sequence[Any], Callable[[], Any]], Any]
"""Gets a call of the graph, its arguments and a function that runs it; returns what that gives."""

_SELECTIONS = ("fxtrt.rpn_proposals.default", "fxtrt.dense_detections.default")
_MASKS = (torch.bool, torch.uint8)
_READ_BY_HOST = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class StitchedCall:
    """A stitched graph to be called like its module, from any number of threads.

    slots:      the slots, which all graphs of a model share.
    unrecorded: "node: why" for the nodes that keep the whole graph out of one CUDA graph.
    """

    def __init__(self, graph: GraphModule, slots: Slots, *, cuda_graphs: bool) -> None:
        """Give the graph's engines the slots, in place of those that they had."""
        self.graph = graph
        self.slots = slots
        self.modules = engine_modules([graph])
        self.cuda_graphs = cuda_graphs
        self.unrecorded: tuple[str, ...] = ()
        self._whole: GraphRunner | None = None
        (nested,) = graph.graph.output_node().args
        self._structure = pytree.tree_structure(nested)
        self._observer: Observer | None = None
        for module in self.modules:
            module.slots, module.graphs = slots, None
        if cuda_graphs:
            self._record()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.slots.engines:
            return self._run_eagerly(args, kwargs)
        return self.slots.run(lambda slot: self._run(slot, args, kwargs))

    @contextmanager
    def observe(self, observer: Observer) -> Iterator[None]:
        """Run the graph node by node while the block runs, each call through `observer`.

        Calls from other threads are observed too. No CUDA graph of the whole is replayed meanwhile,
        because a replay has no nodes.
        """
        before, self._observer = self._observer, observer
        try:
            yield
        finally:
            self._observer = before

    @property
    def recorders(self) -> list[GraphRunner]:
        """Return the runners of CUDA graphs: one for the whole, or else one for each engine."""
        if self._whole is not None:
            return [self._whole]
        return [module.graphs for module in self.modules if module.graphs is not None]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return `unrecorded` and the reasons of recordings that failed since."""
        failed = [reason for runner in self.recorders for reason in list(runner.failed.values())]
        return tuple(dict.fromkeys((*self.unrecorded, *failed)))

    def _record(self) -> None:
        if self.slots.device is None:
            # The reference engine runs where its tensors are, and waits for them between layers.
            self.unrecorded = ("no engine of the graph is one for GPUs",)
            return
        self.unrecorded = tuple(_unrecordable(self.graph, self.slots.device.type))
        if self.unrecorded:
            self._record_engines()
        else:
            self._whole = GraphRunner(
                self._flat, _present(module.engine for module in self.modules)
            )

    def _record_engines(self) -> None:
        for module in self.modules:
            # If sizes depend on data, shapes hardly repeat, or the engine waits for a size.
            nodes = module.fallback.graph.nodes
            if module.engine is not None and not any(map(_depends_on_data, nodes)):
                module.record_graphs()

    def _run(self, slot: Slot, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._whole is not None and self._observer is None:
            whole, leaves = self._whole, _leaves(args, kwargs)
            flat = whole.run(slot, leaves) if _can_be_copied(leaves) else None
            if flat is not None:
                nested = pytree.tree_unflatten(flat, self._structure)
                return self.graph.graph.process_outputs(nested)
            if whole.broken is not None:
                self.unrecorded, self._whole = (whole.broken,), None
                self._record_engines()
        return self._run_eagerly(args, kwargs)

    def _run_eagerly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the graph without a CUDA graph of the whole."""
        observer = self._observer
        if observer is None:
            return self.graph(*args, **kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        result = _ObservedRun(self.graph, observer).run(*leaves, enable_io_processing=False)
        return self.graph.graph.process_outputs(result)

    def _flat(self, *values: Any) -> Sequence[Any]:
        """Return the graph's outputs as a flat sequence; errors name the node."""
        outputs = _NamingRun(self.graph).run(*values, enable_io_processing=False)
        return pytree.tree_leaves(outputs)


class _NamingRun(Interpreter):
    """Runs a graph to be recorded: errors name the node, and no engine falls back to PyTorch."""

    def run_node(self, n: Node) -> Any:
        try:
            return super().run_node(n)
        except (NotRecorded, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:
            raise EngineError(f"{n.name}: {error}") from error

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, EngineModule) and (reason := module.unfit(module.taken(args))):
            # A replay would not count the fallback.
            raise NotRecorded(f"{module.name} runs in PyTorch: {reason}")
        return super().call_module(target, args, kwargs)


class _ObservedRun(Interpreter):
    """Runs a graph, and each of its calls through an observer."""

    def __init__(self, graph: GraphModule, observer: Observer) -> None:
        super().__init__(graph)
        self._observer = observer

    def run_node(self, n: Node) -> Any:
        if not n.op.startswith("call_"):
            return super().run_node(n)
        args, _ = self.fetch_args_kwargs_from_env(n)
        return self._observer(n, args, partial(super().run_node, n))


def serve(
    graphs: Sequence[GraphModule], settings: Settings, *, cores: bool = False
) -> list[StitchedCall]:
    """Make the calls of a model's stitched graphs, which share slots and scratch memory.

    Args:
        cores: whether the graphs are cores of detectors, which CUDA graphs hold by default. A graph
            of Dynamo's counts as one if it has a selection of fixed shape.
    """
    engines = _present(module.engine for module in engine_modules(graphs))
    slots = Slots(engines, settings.slots, settings.slot_timeout)
    if slots.device is not None:
        _tell_memory(slots)
    calls = []
    for graph in graphs:
        records = settings.cuda_graphs
        if records is None:
            records = cores or _selects(graph)
        calls.append(StitchedCall(graph, slots, cuda_graphs=records))
    return calls


def _selects(graph: GraphModule) -> bool:
    """Return whether a graph has a selection of fixed shape, as the cores of detectors have."""
    return any(str(node.target) in _SELECTIONS for node in graph.graph.nodes)


def _tell_memory(slots: Slots) -> None:
    needed, (free, _) = slots.most * slots.scratch_bytes, torch.cuda.mem_get_info(slots.device)
    level = logging.INFO if needed <= free else logging.WARNING
    text = "%d slots take %.2f GB of scratch memory; the GPU has %.2f GB free"
    log.log(level, text, slots.most, needed / 1e9, free / 1e9)


def engine_modules(graphs: Sequence[GraphModule]) -> list[EngineModule]:
    """Return the modules of the clusters of stitched graphs."""
    return [m for graph in graphs for m in graph.children() if isinstance(m, EngineModule)]


def _can_be_copied(values: Iterable[Any]) -> bool:
    """Return whether the inputs of a CUDA graph can be copied from these values."""
    tensors = (value for value in values if isinstance(value, torch.Tensor))
    return not is_transformed() and all(why_unreadable(tensor) is None for tensor in tensors)


def _present(engines: Iterable[Engine | None]) -> list[Engine]:
    return [engine for engine in engines if engine is not None]


def _leaves(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
    if not kwargs and all(type(value) is torch.Tensor for value in args):
        return args
    return pytree.tree_leaves((args, kwargs))


def _unrecordable(graph: GraphModule, device: str) -> Iterator[str]:
    for node in graph.graph.nodes:
        if reason := _why_not_recorded(node, graph, device):
            yield f"{node.name}: {reason}"


def _why_not_recorded(node: Node, graph: GraphModule, device: str) -> str | None:
    """Return why a CUDA graph cannot hold a node, or None."""
    if node.op == "output" or (node.op in ("get_attr", "placeholder") and not node.users):
        return None
    if _depends_on_data(node):
        return "a size that depends on data, which the host must read"
    for value in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(value, torch.Tensor) and value.device.type != device:
            # A constant of one number is read when it is recorded, wherever it is.
            if node.op == "get_attr" and value.dim() == 0:
                continue
            return f"a tensor on {value.device}"
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        if not isinstance(module, EngineModule) or module.engine is None:
            return "runs in PyTorch: its plan cannot run on this machine"
        if any(map(_depends_on_data, module.fallback.graph.nodes)):
            return "its engine waits for a size that depends on data"
        return None
    return _why_not_called(node) if node.op == "call_function" else None


def _depends_on_data(node: Node) -> bool:
    """Return whether a value of the node, or a size of its tensors, depends on data."""
    for value in pytree.tree_leaves(node.meta.get("val")):
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        if any(isinstance(size, torch.SymInt) and is_unbacked(size) for size in sizes):
            return True
    return False


def _why_not_called(node: Node) -> str | None:
    target = node.target
    if not isinstance(target, OpOverload):
        known = getattr(target, "__module__", "") in ("_operator", "math", "torch")
        return None if known else f"{target} is no operator"
    if _READ_BY_HOST & set(target.tags):
        return "a result that depends on data, which the host must read"
    if target._schema.is_mutable:
        return "it writes to its input"
    if any(value.dtype in _MASKS for value in _indices(node, target)):
        return "a mask as an index, whose size the host must read"
    return None


def _indices(node: Node, target: OpOverload) -> Iterator[torch.Tensor]:
    """Yield the tensors in arguments that are lists of tensors or None: only indices are."""
    for position, argument in enumerate(target._schema.arguments):
        if str(argument.type) == "List[Optional[Tensor]]" and position < len(node.args):
            for index in pytree.tree_leaves(node.args[position]):
                if isinstance(index, Node):
                    yield index.meta["val"]
