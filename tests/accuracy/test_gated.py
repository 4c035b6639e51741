"""`fxtrt.compile` with a gate demotes what harms a model, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import int8_models
import pytest
import torch
from guilty_layers import chain, images, least_quality
from small_torchvision import images as pictures
from small_torchvision import small_rcnn
from torch import nn
from torchvision.models.detection import FasterRCNN

import fxtrt
from fxtrt.diagnostics.example_models import calibrate
from fxtrt.errors import AccuracyError
from fxtrt.lowering import lower
from fxtrt.lowering.outcome import outcome_of
from fxtrt.reporting import GateRow
from fxtrt.runtime.timing import Timing

IMAGES = images(6)
pytestmark = pytest.mark.usefixtures("no_grad")


def gate(most_loss: float = 5e-3, **options: Any) -> fxtrt.Gate:
    return fxtrt.Gate(
        **{"images": IMAGES, "metric": least_quality, "most_loss": most_loss, **options}
    )


def compiled(model: nn.Module, gate: fxtrt.Gate, **options: Any) -> tuple[nn.Module, GateRow]:
    given = {"engine": "reference", "precision": "fp16", "cache_dir": None, **options}
    fast = fxtrt.compile(model, IMAGES[0], accuracy_gate=gate, **given)
    (row,) = fxtrt.report(fast).gate
    return fast, row


def modules(row: GateRow) -> list[str]:
    return [one.module for one in row.demotions]


def quality(fast: nn.Module, model: nn.Module) -> float:
    return least_quality([fast(*x) for x in IMAGES], [model(*x) for x in IMAGES])


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[fxtrt.Settings]:
    """The settings of each round of builds."""
    found: list[fxtrt.Settings] = []
    settle = lower.settle  # type: ignore[attr-defined]  # to be replaced

    def counted(gm: Any, target: Any, *args: Any) -> Any:
        found.append(target.settings)
        return settle(gm, target, *args)

    monkeypatch.setattr(lower, "settle", counted)
    return found


def test_a_harmless_model_costs_no_demotion(builds: list[fxtrt.Settings]) -> None:
    model = chain(6, {})
    _, row = compiled(model, gate())
    assert (row.demotions, row.builds, row.runs) == ((), 1, len(IMAGES))
    assert row.loss == row.loss_before == row.loss_simulated < 1e-3
    assert [one.keep_fp32 for one in builds] == [()]


@pytest.mark.parametrize("guilty", [0, 9, 19])
def test_one_guilty_layer_among_many(guilty: int, builds: list[fxtrt.Settings]) -> None:
    model = chain(20, {guilty: 3000.0})
    fast, row = compiled(model, gate())
    assert modules(row) == [f"layers.{guilty}.conv"]
    (one,) = row.demotions
    assert (one.before, one.after, one.setting) == ("fp16", "fp32", "keep_fp32")
    assert one.error is not None
    assert one.error > 0.1
    assert one.wins == pytest.approx(row.loss_before - row.loss_simulated)  # type: ignore[operator]
    assert one.flops > 0
    # All images as it is and with the demotion, two for the errors, and four in the one test.
    assert row.runs == 2 * len(IMAGES) + 2 + 4
    assert row.loss_before is not None
    assert row.loss_before > 0.05
    assert row.loss is not None
    assert row.loss <= 5e-3
    assert 1 - quality(fast, model) == pytest.approx(row.loss, abs=1e-6)
    assert [settings.keep_fp32 for settings in builds] == [(one.entry,)]


def test_values_that_overflow() -> None:
    """The first layer makes them, and the second would round them, so both must leave float16."""
    first: tuple[Any, ...] = (nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    model = nn.Sequential(*first, *chain(4, {}).layers)
    first[0].weight.data *= 1e5 / 4
    first[2].weight.data /= 1e3
    _, row = compiled(model.eval(), gate(0.05, images=[(x * 10,) for (x,) in IMAGES]))
    assert sorted(modules(row)) == ["0", "2"]
    assert row.loss_before is None  # What overflows becomes NaN, and the metric no number.


def test_two_guilty_layers() -> None:
    _, row = compiled(chain(10, {3: 1000.0, 6: 1000.0}), gate())
    assert sorted(modules(row)) == ["layers.3.conv", "layers.6.conv"]
    assert row.minimal
    assert all(one.wins is not None and one.wins > 0.01 for one in row.demotions)


def test_two_layers_that_are_guilty_only_together() -> None:
    """Either may stay, so one demotion is enough."""
    model = chain(10, {3: 256.0, 6: 256.0})
    alone = [compiled(chain(10, {i: 256.0}), gate(1.0))[1].loss for i in (3, 6)]
    together = compiled(model, gate(1.0))[1].loss
    assert together is not None
    most = max(loss for loss in alone if loss is not None)
    bound = (most + together) / 2
    assert most < bound < together
    _, row = compiled(model, gate(bound))
    assert len(row.demotions) == 1
    assert modules(row)[0] in ("layers.3.conv", "layers.6.conv")


def test_the_decision_is_data() -> None:
    """Its settings, given without the gate, compile the same model."""
    model = chain(8, {4: 3000.0})
    fast, row = compiled(model, gate())
    entries = tuple(one.entry for one in row.demotions)
    again = fxtrt.compile(
        model, IMAGES[0], engine="reference", precision="fp16", cache_dir=None, keep_fp32=entries
    )
    for x in IMAGES:
        assert torch.equal(again(*x), fast(*x))


def test_the_search_is_deterministic() -> None:
    rows = [compiled(chain(10, {3: 1000.0, 6: 1000.0}), gate())[1] for _ in range(2)]
    assert rows[0] == rows[1]


def test_few_of_many_images_are_searched_and_all_are_judged() -> None:
    many = images(40)
    _, row = compiled(chain(12, {5: 3000.0}), gate(images=many))
    assert modules(row) == ["layers.5.conv"]
    assert row.images == 40
    assert row.runs == 2 * 40 + 2 + 4


def test_what_shows_on_one_image_only_is_found() -> None:
    """The images that a search begins with pass, so it must look at others."""
    many = [(x / 1000,) for (x,) in images(24)]
    many[5] = (many[5][0] * 1000,)
    model = chain(4, {1: 128.0})

    def worst(predictions: Any, expected: Any) -> float:
        pairs = zip(predictions, expected, strict=True)
        return -max(float((a - b).abs().max()) for a, b in pairs)

    _, row = compiled(model, gate(images=many, metric=worst, most_loss=2e-3))
    assert modules(row) == ["layers.1.conv"]


def test_a_bound_that_nothing_reaches() -> None:
    def never_the_same(predictions: Any, expected: Any) -> float:
        pairs = zip(predictions, expected, strict=True)
        return 1.0 if all(a is b or torch.equal(a, b) for a, b in pairs) else 0.25

    norm: Any = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), norm, *(chain(2, {}).layers)).eval()
    with pytest.raises(AccuracyError, match=r"every call in float32, never_the_same still loses"):
        compiled(model, gate(metric=never_the_same, most_loss=0.1), precision="fp16")


def test_images_that_do_not_fit_what_was_compiled() -> None:
    other = [(torch.rand(1, 4, 20, 20),)]
    with pytest.raises(AccuracyError, match="no image of the gate fits what was compiled"):
        compiled(chain(2, {}), gate(images=other))


def test_a_nodes_name_that_is_also_a_modules() -> None:
    """In this model, `convolution` names a node, and a module with nodes of its own."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = chain(1, {0: 3000.0}).layers
            self.convolution = chain(2, {}).layers
            self.head = nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.convolution(self.first(x)).mean((2, 3)))
            return result

    _, row = compiled(Named().eval(), gate())
    (one,) = row.demotions
    assert (one.node, one.entry) == ("convolution", "first.0.conv:convolution")
    assert row.loss == pytest.approx(row.loss_simulated, abs=1e-6)


def test_the_report_tells_in_all_its_forms(tmp_path: Path) -> None:
    fast, row = compiled(chain(6, {2: 3000.0}), gate())
    report = fxtrt.report(fast)
    entry = "layers.2.conv:convolution_2 (aten.convolution.default): fp16 -> fp32 by keep_fp32"
    for text in (str(report).replace("\n  ", " "), report.to_markdown()):
        assert "Accuracy gate" in text
        assert "least_quality over 6 images" in text
        assert entry in text
    report.to_html(page := tmp_path / "page.html")
    assert "layers.2.conv:convolution_2" in page.read_text(encoding="utf-8")
    assert fxtrt.Coverage.from_json(report.to_json()).gate == (row,)
    assert fxtrt.report(fxtrt.compile(chain(2, {}), IMAGES[0], engine="reference")).gate == ()


def test_the_artifact_keeps_it(tmp_path: Path) -> None:
    model = chain(6, {2: 3000.0})
    fast, row = compiled(model, gate(), cache_dir=tmp_path / "cache")
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    loaded = fxtrt.load(tmp_path / "model.fxtrt", model)
    assert fxtrt.report(loaded).gate == (row,)
    for x in IMAGES:
        assert torch.equal(loaded(*x), fast(*x))


def test_an_engine_that_differs_from_its_simulation_is_left_out(
    monkeypatch: pytest.MonkeyPatch, builds: list[fxtrt.Settings]
) -> None:
    """The engines give tanh 3 % too much: no precision explains that, so PyTorch runs them."""
    from fxtrt.engines.interpreter import program

    right = program.Step.run

    def wrong(self: Any, values: dict[str, torch.Tensor]) -> None:
        right(self, values)
        if "tanh" in self.layer:
            values.update({r.name: values[r.name] * 1.03 for r in self.results})

    monkeypatch.setattr(program.Step, "run", wrong)
    model = chain(3, {})
    fast, row = compiled(model, gate())
    assert len(builds) == row.builds == 2
    assert {(one.after, one.setting) for one in row.demotions} == {("PyTorch", "blacklist")}
    assert row.loss is not None
    assert row.loss <= 5e-3
    assert quality(fast, model) > 0.995


def test_a_gate_that_the_engines_never_pass(
    monkeypatch: pytest.MonkeyPatch, builds: list[fxtrt.Settings]
) -> None:
    """They are a bit worse than simulated, too little for a single cluster to be to blame."""
    from fxtrt.accuracy import gate as gates

    right = gates.Judge.predictions

    def worse(self: Any, model: nn.Module, items: Any = None) -> Any:
        found = right(self, model, items)
        if not builds:
            return found
        return [[entry * 0.9 for entry in entries] for entries in found]

    monkeypatch.setattr(gates.Judge, "predictions", worse)
    with pytest.raises(AccuracyError, match=r"the engines lose 0\.1"):
        compiled(chain(3, {}), gate())
    assert len(builds) == 1  # No bound is left that a second one could keep.


def test_a_detector_by_agreement(builds: list[fxtrt.Settings]) -> None:
    """Its box head has an offset between its two layers, which leaves no digits for the signal."""
    detector = copy.deepcopy(small_rcnn(FasterRCNN))
    head = detector.roi_heads.box_head
    head.fc6.bias.data += 3e4
    head.fc7.bias.data -= head.fc7.weight.data.sum(1) * 3e4
    calls = [(pictures(1),), ([pictures(2)[1]],)]
    calibrate(detector, calls[0])
    judged = fxtrt.Gate(images=calls, metric="agreement")
    options: dict[str, Any] = {"engine": "reference", "precision": "fp16", "cache_dir": None}
    fast = fxtrt.compile(detector, calls[0], accuracy_gate=judged, **options)
    (row,) = fxtrt.report(fast).gate
    assert (row.baseline, row.images) == (1.0, 2)
    assert row.loss_before is not None
    assert row.loss_before > 0.1
    # The second layer would round the result of the first.
    assert sorted(modules(row)) == ["roi_heads.box_head.fc6", "roi_heads.box_head.fc7"]
    assert row.loss is not None
    assert row.loss <= 0.01
    assert len(builds) == 1


def test_int8_leaves_what_needs_it_in_float16(builds: list[fxtrt.Settings]) -> None:
    model, data = int8_models.residual(), int8_models.data(6)
    options: dict[str, Any] = {"engine": "reference", "precision": "int8", "cache_dir": None}
    judged = gate(images=data, most_loss=4e-3)
    fast = fxtrt.compile(model, data[0], calibration=data, accuracy_gate=judged, **options)
    (row,) = fxtrt.report(fast).gate
    assert row.loss_before is not None
    assert row.loss_before > 4e-3 >= row.loss_simulated
    assert row.loss is not None
    assert row.loss <= 4e-3
    (one,) = row.demotions
    assert (one.module, one.before, one.after, one.setting) == (
        "hidden",
        "int8",
        "fp16",
        "keep_fp16",
    )
    assert [settings.keep_fp16 for settings in builds] == [("hidden:linear",)]


def test_int8_may_have_to_go_to_float32() -> None:
    """The bound is below what float16 loses, so one layer must leave both narrow types."""
    model, data = int8_models.residual(), int8_models.data(6)
    options: dict[str, Any] = {"engine": "reference", "precision": "int8", "cache_dir": None}
    judged = gate(images=data, most_loss=4e-4)
    fast = fxtrt.compile(model, data[0], calibration=data, accuracy_gate=judged, **options)
    (row,) = fxtrt.report(fast).gate
    steps = {(one.before, one.after) for one in row.demotions}
    assert ("int8", "fp16") in steps
    assert ("fp16", "fp32") in steps
    assert row.loss is not None
    assert row.loss <= 4e-4


def test_measured_engines_tell_what_the_demotions_cost(
    monkeypatch: pytest.MonkeyPatch, builds: list[fxtrt.Settings]
) -> None:
    def timed(module: Any, arguments: Any) -> Timing:
        return Timing(2.0 if len(builds) == 1 else 1.5, 5.0)

    monkeypatch.setattr("fxtrt.lowering.settle.measure", timed)
    fast, row = compiled(chain(6, {2: 3000.0}), gate(), partition="measured")
    outcome = outcome_of(fast)
    assert outcome is not None
    assert outcome.target.settings.keep_fp32 == ("layers.2.conv:convolution_2",)
    assert fast(*IMAGES[0]) is not None
    assert row.costs_ms == pytest.approx(0.5)
    assert row.builds == 1
    assert len(builds) == 2  # the one that measures is counted apart
