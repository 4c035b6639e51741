"""Components: parts of a model with engines, and options of engines, of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from graphs import quotient, random_dag, rejects
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fxtrt
from fxtrt.detection import Recipe, register
from fxtrt.errors import SettingsError
from fxtrt.partition.partition import partition, repair

aten = torch.ops.aten
SUPPORT = rejects(aten.sigmoid.default)
RELU_AND_ADD: dict[str, dict[str, Any]] = {"aten.relu": {}, "aten.add": {}}


class Detector(nn.Module):
    """A backbone and two heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.boxes = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.masks = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(image)
        return self.boxes(features) + 1, self.masks(features).sigmoid()


IMAGE = torch.rand(1, 3, 12, 12)


def compiled(**options: Any) -> nn.Module:
    return fxtrt.compile(Detector().eval(), (IMAGE,), engine="reference", **options)


def rows(model: nn.Module) -> list[tuple[str, str]]:
    """The modules and the compute dtype of each cluster."""
    clusters = fxtrt.report(model).clusters
    return [
        (" ".join(sorted({path.partition(".")[0] for path in row.module_paths})), row.dtypes[0])
        for row in clusters
    ]


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_clusters_are_convex_and_of_one_component(seed: int, size: int) -> None:
    gm = random_dag(seed, size)
    options = fxtrt.Settings(min_cluster_size=1, components=RELU_AND_ADD)
    plan = repair(gm, partition(gm, SUPPORT, options))
    assert nx.is_directed_acyclic_graph(quotient(gm, plan))
    for cluster in plan.clusters:
        targets = {str(n.target).split(".")[1] for n in cluster.nodes if "view" not in str(n)}
        assert len(targets & {"relu", "add", "neg"}) <= 1
    clustered = [node for cluster in plan.clusters for node in cluster.nodes]
    calls = [node for node in gm.graph.nodes if node.op == "call_function"]
    assert sorted(map(str, [*clustered, *plan.rejections])) == sorted(map(str, calls))


def test_each_has_engines_and_a_precision_of_its_own() -> None:
    model = compiled(
        precision="fp16",
        components={"masks": {"precision": "fp32"}, "boxes": {"precision": "bf16"}},
    )
    assert rows(model) == [("backbone", "float16"), ("masks", "float32"), ("boxes", "bfloat16")]


def test_without_options_it_is_cut_off_only() -> None:
    assert rows(compiled()) == [("backbone boxes masks", "float32")]
    model = compiled(components={"backbone": {}})
    assert rows(model) == [("backbone", "float32"), ("boxes masks", "float32")]
    for actual, expected in zip(model(IMAGE), Detector().eval()(IMAGE), strict=True):
        torch.testing.assert_close(actual, expected)


def test_the_first_pattern_that_names_a_node_counts() -> None:
    options = {"masks.0": {"precision": "bf16"}, "masks": {}}
    found = rows(compiled(components=options, min_cluster_size=1, blacklist=["aten.sigmoid"]))
    assert found == [("backbone boxes", "float32"), ("masks", "bfloat16"), ("masks", "float32")]


def test_a_component_has_a_minimum_size_of_its_own() -> None:
    model = compiled(components={"masks": {"min_cluster_size": 5}})
    assert rows(model) == [("backbone boxes", "float32")]
    found = {row.detail for row in fxtrt.report(model).rejections if row.module.startswith("masks")}
    assert found == {"3 compute nodes in the cluster, the minimum is 5"}


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (["masks"], "components must be a dict"),
        ({"masks": "fp16"}, "a dict of options for each pattern, not 'fp16' for 'masks'"),
        ({"masks": {"precison": "fp16"}}, "no option 'precison': did you mean 'precision'"),
        ({"masks": {"slots": 2}}, "a component has no option 'slots'"),
        ({"masks": {"precision": "half"}}, "component 'masks': .*did you mean 'fp16'"),
    ],
)
def test_wrong_options_are_refused(components: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fxtrt.Settings(components=components)


def test_a_component_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(SettingsError, match="'mask' matches no node: did you mean 'masks'"):
        compiled(components={"mask": {}})


def test_they_come_back_with_a_saved_model(tmp_path: Path) -> None:
    options = {"masks": {"precision": "bf16", "tactic_sources": ["CUDNN"]}}
    model = compiled(components=options)
    fxtrt.save(model, tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", Detector().eval())
    assert rows(loaded) == rows(model)
    assert rows(model)[1] == ("masks", "bfloat16")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr("fxtrt.detection.recipes._RECIPES", {})

    def recipe_with(**components: dict[str, Any]) -> None:
        register(Recipe(f"{__name__}.Detector", {}, components=components))

    return recipe_with


def test_a_plan_has_components_and_the_user_the_last_word(planned: Callable[..., None]) -> None:
    planned(masks={"precision": "bf16"}, boxes={"precision": "fp16"}, keypoints={})
    names = [("backbone", "float32"), ("masks", "bfloat16"), ("boxes", "float16")]
    assert rows(compiled()) == names
    changed = rows(compiled(components={"boxes": {"precision": "fp32"}}))
    assert sorted(changed) == sorted([*names[:2], ("boxes", "float32")])
