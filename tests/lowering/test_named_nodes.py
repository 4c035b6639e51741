"""The names in TensorRT's messages are found again in the graph, with all that a range holds."""

from __future__ import annotations

import re

import pytest
import torch
from failing_engine import no_implementation
from hypothesis import given
from hypothesis import strategies as st
from torch.fx import GraphModule

from fxtrt.builder.casts import with_precision
from fxtrt.capture.export import trace
from fxtrt.errors import BuildError, ConversionError
from fxtrt.lowering.named_nodes import Named, layers_in, named_nodes
from fxtrt.partition.extract import Extracted, extract
from fxtrt.partition.partition import Cluster
from fxtrt.settings import Settings

IDENTIFIERS = st.from_regex(re.compile(r"[a-z_][a-z0-9_]{0,12}", re.ASCII), fullmatch=True)


@pytest.mark.parametrize(
    ("message", "singles", "ranges"),
    [
        (
            "Could not find any implementation for node {ForeignNode[select_3.0...view_32.0]}.",
            (),
            ((("select_3",), ("view_32",)),),
        ),
        (
            no_implementation("{ForeignNode[_to_copy_default_1.0...view_19.0]}"),
            (),
            ((("_to_copy_default_1",), ("view_19",)),),
        ),
        (
            "Error Code 10: Internal Error (Could not find any implementation for node "
            "{ForeignNode[view.0 + permute_4.0...cat.2]}.)",
            (),
            ((("view", "permute_4"), ("cat",)),),
        ),
        (
            "(Could not find any implementation for node {ForeignNode[(Unnamed Layer* 1247) "
            "[Shuffle]...view_2.0 + view_4.1]}.)",
            (),
            (((), ("view_2", "view_4")),),
        ),
        ("no implementation for node {ForeignNode[view_3.0]}.", ("view_3",), ()),
        (
            "10: Could not find any implementation for node convolution_3.0 + relu_3.0.",
            ("convolution_3", "relu_3"),
            (),
        ),
        (
            "no implementation for node PWN(sigmoid_1.0, mul_2.0).",
            ("sigmoid_1", "mul_2"),
            (),
        ),
        (
            "[graphShapeAnalyzer.cpp::analyzeShapes::1872] Error Code 4: Miscellaneous "
            "(IShuffleLayer view_5.0: reshape changes volume. Reshaping [6,1000,8] to [6,334].)",
            ("view_5",),
            (),
        ),
        (
            "4: [shapeMachine.cpp::execute::565] Error Code 4: Internal Error (IElementWiseLayer "
            "add_7.12: broadcast dimensions must be conformable)",
            ("add_7",),
            (),
        ),
        ("TensorRT 8.6.0 built no plan: TensorRT gave no message", (), ()),
        ("TensorRT v8.6.1 and libnvinfer.so.8: Error Code 2: OutOfMemory (Requested 3.0)", (), ()),
        ("2: [builder.cpp::buildSerializedNetwork::609] (Assertion enginePtr != nullptr", (), ()),
    ],
)
def test_a_message_is_read(
    message: str, singles: tuple[str, ...], ranges: tuple[object, ...]
) -> None:
    assert layers_in(message) == (singles, ranges)


@given(first=IDENTIFIERS, last=IDENTIFIERS, layers=st.tuples(st.integers(0, 99), st.integers(0)))
def test_every_name_of_a_node_is_read(first: str, last: str, layers: tuple[int, int]) -> None:
    a, b = f"{first}.{layers[0]}", f"{last}.{layers[1]}"
    assert layers_in(f"for node {{ForeignNode[{a}...{b}]}}.") == ((), (((first,), (last,)),))
    assert layers_in(f"for node {a} + {b}.") == (tuple(dict.fromkeys((first, last))), ())


@given(text=st.text(st.sampled_from("Fa_. []{}()+:0123ForeignNode[...")))
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    singles, ranges = layers_in(text)
    assert all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in singles)
    assert all(len(one) == 2 for one in ranges)


def cluster_of(gm: GraphModule, precision: str = "model") -> Extracted:
    nodes = tuple(node for node in gm.graph.nodes if node.op == "call_function")
    return extract(gm, Cluster("cluster_0", nodes, Settings(precision=precision)))


def named(error: BuildError | ConversionError, cluster: Extracted) -> Named:
    built, _ = with_precision(cluster.module, cluster.cluster.settings)
    return named_nodes(error, cluster.cluster.nodes, cluster.originals, built)


def names(cluster: Extracted, message: str) -> list[str]:
    return [node.name for node in named(BuildError(message), cluster).nodes]


def fork() -> Extracted:
    """The convolution's path and the one beside it meet in the `add`."""

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        a = torch.exp(torch.sin(x))
        b = torch.tanh(torch.conv2d(torch.cos(x), w, padding=1))
        c = torch.sigmoid(torch.relu(a))
        return torch.abs(torch.add(c, b))

    return cluster_of(trace(function, (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3))))


def test_a_range_holds_the_paths_between_its_ends() -> None:
    cluster = fork()
    found = named(BuildError("{ForeignNode[sin.0...add.0]}"), cluster)
    assert [n.name for n in found.nodes] == ["sin", "exp", "relu", "sigmoid", "add"]
    assert [n.name for n in found.between] == ["exp", "relu", "sigmoid"]


def test_a_range_without_a_path_holds_what_is_connected_in_order_but_no_products() -> None:
    cluster = fork()
    assert names(cluster, "{ForeignNode[exp.0...tanh.0]}") == ["exp", "tanh"]
    assert names(cluster, "{ForeignNode[cos.0...sigmoid.0]}") == ["cos", "relu", "sigmoid"]
    assert names(cluster, "{ForeignNode[sigmoid.0...cos.0]}") == ["cos", "relu", "sigmoid"]


def test_what_is_no_node_names_nothing() -> None:
    cluster = fork()
    assert named(BuildError("node {ForeignNode[gone.0...exp.0]}."), cluster).between == ()
    assert names(cluster, "node {ForeignNode[gone.0...exp.0]}.") == ["exp"]
    assert names(cluster, "node gone.0, x.0, (Unnamed Layer* 3) [Shuffle], sin") == []


def test_a_cast_that_the_builder_adds_can_be_the_end_of_a_range() -> None:
    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.erf(torch.exp(torch.softmax(torch.mm(x, w), 0)).log())

    gm = trace(function, (torch.rand(4, 4), torch.rand(4, 4)))
    cluster = cluster_of(gm, "fp16")
    built, _ = with_precision(cluster.module, cluster.cluster.settings)
    (cast,) = [n for n in built.graph.nodes if n.name.startswith("_to") and n.args[0].name == "mm"]
    message = no_implementation(f"{{ForeignNode[{cast.name}.0...log.0]}}")
    assert names(cluster, message)[-2:] == ["exp", "log"]
    assert "mm" not in names(cluster, message)
    assert "erf" not in names(cluster, message)


def test_a_call_is_named_with_its_results() -> None:
    gm = trace(lambda x: torch.topk(torch.relu(x), 2)[0].exp(), (torch.rand(4),))
    assert names(cluster_of(gm), "node topk.0.") == ["topk", "getitem"]


def test_a_conversion_error_names_its_node_alone() -> None:
    cluster = fork()
    error = ConversionError("exp = aten.exp(sin: (1, 1, 4, 4)): relu.0 is not to blame", "exp")
    assert [node.name for node in named(error, cluster).nodes] == ["exp"]
    assert named(ConversionError("TensorRT took no input x0; exp.0"), cluster) == Named()
