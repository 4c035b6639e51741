"""The report says what runs where, why, and what it costs, in every form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import torch.nn.functional as F
from report_rows import BREAK, CLUSTER, REJECTED, Model, X
from torch import nn

import fxtrt
from fxtrt.builder.build import BuildInfo
from fxtrt.capture.export import trace
from fxtrt.graph.flops import flops
from fxtrt.reporting import (
    Coverage,
    Fallback,
    GraphBreak,
    RuntimeRow,
)
from fxtrt.reporting.diff import diff
from fxtrt.reporting.picture import Picture, PictureNode


def test_totals_and_shares() -> None:
    drawn = Picture((PictureNode("a", "t", "m", 0), PictureNode("b", "t", "m", None, 0)), ((0, 1),))
    part = Coverage((CLUSTER,), (REJECTED,), (BREAK,), 2, 3, (drawn,))
    total = Coverage.total([part, part])
    assert (total.nodes, total.converted) == (20, 18)
    assert total.flops == 8_000_000_000
    assert total.flops_share == 0.75
    assert [row.name for row in total.clusters] == ["cluster_0", "cluster_1"]
    assert (total.cuts, total.cuts_before_repair) == (4, 6)
    assert [n.cluster for p in total.pictures for n in p.nodes] == [0, None, 1, None]
    assert [n.rejection for p in total.pictures for n in p.nodes] == [None, 0, None, 1]
    assert Coverage().flops_share == 0.0


def test_the_text_has_clusters_reasons_and_breaks() -> None:
    text = str(Coverage((CLUSTER,), (REJECTED, REJECTED), (BREAK,), 2, 3))
    assert text.startswith(
        "1 engine: 60.0% of the FLOPs, 9 of 11 compute nodes, 2 cuts (3 before repair)"
    )
    for part in ("backbone", "3.00", "3.0 MiB", "12.0 MiB", "5.0 KiB", "1.50 s"):
        assert part in text
    assert "tensorrt: TensorRT 10" in text
    assert "2        no_converter  torchvision.nms.default has no converter" in text
    assert "model.py:3 in forward" in text


def test_the_text_is_at_most_100_columns_wide() -> None:
    cluster = replace(CLUSTER, name="cluster_10", module_paths=("a" * 50,), nodes=1000)
    cluster = replace(cluster, flops=10**12, bytes_in=10**9, bytes_out=10**9)
    rejected = replace(REJECTED, detail="word " * 80, source="s" * 80, flops=10**12)
    found = replace(BREAK, reason="r" * 200, source="s" * 80)
    coverage = Coverage((cluster,), (rejected,), (found,))
    timed = Coverage(
        (replace(cluster, engine_ms=123.45, pytorch_ms=1234.5),), (replace(rejected, ms=123.45),)
    )
    for text in (str(coverage), str(timed)):
        assert max(map(len, text.splitlines())) <= 100


def test_what_comes_from_the_cache_says_so() -> None:
    cached = BuildInfo(seconds=0.1, layers=None, plan_bytes=1 << 20, cached=True)
    assert "from cache" in str(Coverage((replace(CLUSTER, build=cached),)))


def test_many_reasons_are_cut_short() -> None:
    rows = tuple(replace(REJECTED, detail=f"reason {i}") for i in range(30))
    assert "... and 10 calls for other reasons" in str(Coverage((), rows))


def test_reasons_are_sorted_by_time_then_flops() -> None:
    slow = replace(REJECTED, detail="slow", flops=0, ms=5.0)
    heavy = replace(REJECTED, detail="heavy", flops=10**12)
    many = replace(REJECTED, detail="many", flops=0, calls=40)
    text = str(Coverage((), (many, heavy, slow)))
    assert text.index("slow") < text.index("heavy") < text.index("many")


@pytest.fixture(scope="module")
def coverage() -> Coverage:
    return fxtrt.report(Model().eval(), (X,), engine="reference")


def test_rows_name_the_module_and_the_line(coverage: Coverage) -> None:
    (row,) = coverage.rejections
    assert row.target == "aten.erfinv.default"
    assert row.source.startswith("report_rows.py:")
    first, second = coverage.clusters
    assert [row.modules for row in coverage.clusters] == ["part", "rest"]
    assert (first.bytes_in, first.bytes_out) == (2 * 4 * 4, 2 * 4 * 4)
    assert (second.bytes_in, second.bytes_out) == (2 * 4 * 4, 2 * 8 * 4)
    assert ("aten.relu.default", 1) in first.ops
    assert first.dtypes == ("float32",)
    assert coverage.cuts == 2


def test_the_picture_holds_every_call(coverage: Coverage) -> None:
    (picture,) = coverage.pictures
    assert picture.dropped == 0
    assert [node.target for node in picture.nodes if node.cluster is None] == [
        "input",
        "aten.erfinv.default",
    ]
    rejected = next(i for i, node in enumerate(picture.nodes) if node.rejection == 0)
    around = [picture.nodes[end] for edge in picture.edges if rejected in edge for end in edge]
    assert {node.cluster for node in around} == {0, None, 1}


class _Halves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, indices = torch.sort(x)
        a, b = torch.split(values, 4, -1)
        return a * b + indices[:, :4]


def test_a_call_with_several_results_counts_once() -> None:
    found = fxtrt.report(_Halves().eval(), (torch.arange(16.0).view(2, 8),), blacklist=("aten.*",))
    targets = [row.target for row in found.rejections]
    assert targets.count("aten.sort.default") == targets.count("aten.split.Tensor") == 1
    assert "getitem" not in targets
    drawn = [n for n in found.pictures[0].nodes if n.target == "getitem"]
    assert [found.rejections[n.rejection or 0].target for n in drawn] == [
        "aten.sort.default",
        "aten.sort.default",
        "aten.split.Tensor",
        "aten.split.Tensor",
    ]


def test_precision_is_among_the_dtypes() -> None:
    report = fxtrt.report(Model().eval(), (X,), engine="reference", precision="fp16")
    assert report.clusters[0].dtypes == ("float16", "float32")


def test_what_stays_float32_is_named(tmp_path: Path) -> None:
    class TooLarge(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 4, 1)
            self.conv.weight.data[0, 0] = 70_000

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.conv(x).relu()
            return result

    x = torch.rand(1, 4, 6, 6)
    settings = fxtrt.Settings(engine="reference", precision="fp16", min_cluster_size=1)
    report = fxtrt.report(fxtrt.compile(TooLarge().eval(), (x,), settings=settings))
    (line,) = report.kept_fp32
    assert line.startswith(
        "cluster_0: convolution: weight has 70000, and 65504 is the largest float16"
    )
    assert "Kept in float32:\n* cluster_0: convolution" in str(report)
    assert "## Kept in float32\n\n* cluster_0: convolution" in report.to_markdown()
    assert Coverage.from_json(report.to_json()).kept_fp32 == report.kept_fp32
    report.to_html(page := tmp_path / "page.html")
    assert "<li>cluster_0: convolution: weight has 70000" in page.read_text(encoding="utf-8")


def test_markdown_has_a_row_for_each_cluster_and_reason(coverage: Coverage) -> None:
    text = replace(coverage, graph_breaks=(GraphBreak("a | b", "m.py:1"),)).to_markdown()
    assert "| cluster_1 | rest" in text
    assert "aten.erfinv.default has no converter" in text
    assert "a \\| b" in text


def test_json_fits_its_schema_and_comes_back(coverage: Coverage) -> None:
    schema = json.loads(files("fxtrt.reporting").joinpath("coverage.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    full = replace(
        coverage,
        clusters=(*coverage.clusters, replace(CLUSTER, engine_ms=1.0, pytorch_ms=2.0)),
        graph_breaks=(BREAK,),
    )
    for report in (coverage, full, Coverage()):
        text = report.to_json()
        jsonschema.validate(json.loads(text), schema)
        assert Coverage.from_json(text) == report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a report"),
        ("[]", "not a report"),
        ('{"version": 2}', "has version 2, this fxtrt reads 1"),
        ('{"version": 1}', "does not fit its schema"),
    ],
)
def test_other_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(fxtrt.errors.ReportError, match=message):
        Coverage.from_json(text)


WRONG: tuple[Any, ...] = (None, "x", 0.5, 77, -5, [], {}, [1])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in parsed JSON with every key of it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def test_a_damaged_report_is_refused_or_can_be_used(coverage: Coverage, tmp_path: Path) -> None:
    """Each value in turn becomes one of another type, or an index of what is not there."""
    small = replace(coverage, clusters=(CLUSTER, CLUSTER), graph_breaks=(BREAK,))
    small = replace(small, runtime=(RuntimeRow(4, 1, 9, 9, fallbacks=(Fallback("a", "b", 1),)),))
    value = json.loads(small.to_json())
    refused = used = 0
    for container, key in places(value):
        before = container[key]
        for wrong in WRONG:
            container[key] = wrong
            try:
                damaged = Coverage.from_json(json.dumps(value))
            except fxtrt.errors.ReportError:
                refused += 1
                continue
            used += 1
            assert diff(coverage, damaged)
            assert str(damaged)
            damaged.to_html(tmp_path / "damaged.html")
        container[key] = before
    assert refused > used > 0


def test_a_diff_names_what_changed(coverage: Coverage) -> None:
    assert diff(coverage, coverage) == "Nothing changed."
    after = fxtrt.report(Model().eval(), (X,), engine="reference", blacklist=("rest",))
    text = diff(coverage, after)
    assert "clusters                  2         1" in text
    assert "- rest: 3 nodes" in text
    assert "blacklist: 'rest' is in the blacklist" in text
    assert "relu_1 (rest.1): engine -> blacklist" in text


def test_measuring_times_every_row() -> None:
    model = Model().eval()
    before = fxtrt.report(model, (X,), measure=True, engine="reference")
    assert all(row.engine_ms is None and row.pytorch_ms for row in before.clusters)
    after = fxtrt.report(fxtrt.compile(model, (X,), engine="reference"), (X,), measure=True)
    assert all(row.engine_ms and row.pytorch_ms for row in after.clusters)
    for report in (before, after):
        assert all(row.ms for row in report.rejections)
    with pytest.raises(fxtrt.errors.FxtrtError, match="needs example inputs"):
        fxtrt.report(model, measure=True)


class Broken(nn.Module):
    """Most of its work is in graphs; a sum leaves them, and a matrix product is between them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def forward(self, x: torch.Tensor) -> Any:
        x = self.model(x)
        total = float(x.sum())
        return self.outside(x) * total

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's
    def outside(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(8, 3)


@pytest.mark.parametrize("measure", [False, True])
def test_what_no_graph_holds_counts_too(measure: bool) -> None:
    torch._dynamo.reset()
    compiled: Any = torch.compile(Broken().eval(), backend="fxtrt", options={"engine": "reference"})
    with torch.no_grad():
        compiled(X)
        without = fxtrt.report(compiled)
        report = fxtrt.report(compiled, (X,), measure=measure)
    outside = {row.target: row for row in report.rejections if row.code == "outside"}
    assert outside["aten.mm.default"].flops == 2 * 2 * 8 * 3
    assert outside["aten.mm.default"].source.endswith("in outside")
    assert (outside["aten.mm.default"].ms is not None) == measure
    assert "item" in outside["aten._local_scalar_dense.default"].detail
    assert report.flops == without.flops + 2 * 2 * 8 * 3
    assert without.flops_share == 1.0 > report.flops_share


def test_what_no_part_holds_counts_too() -> None:
    report = fxtrt.report(Broken().eval(), (X,), engine="reference")
    missed, *outside = (row for row in report.rejections if row.code in ("capture", "outside"))
    assert missed.code == "capture"
    products = [row for row in outside if row.target == "aten.mm.default"]
    assert [row.flops for row in products] == [2 * 2 * 8 * 3]
    assert report.flops == sum(row.flops for row in report.clusters) + 2 * 2 * 8 * 3


def test_flops_are_torchs() -> None:
    weight = torch.randn(8, 4, 3, 3)
    gm = trace(
        lambda x: F.conv2d(x, weight).relu().flatten(1) @ torch.ones(288, 2),
        (torch.randn(2, 4, 8, 8),),
    )
    counted = {node.name: flops(node) for node in gm.graph.nodes if node.op == "call_function"}
    assert counted["convolution"] == 2 * 2 * 8 * 4 * 9 * 36
    assert counted["relu"] == 0
    assert sum(counted.values()) - counted["convolution"] == 2 * 2 * 288 * 2
