"""The tuner finds what serves most, says why, and its file holds for one machine and one file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("simpy", reason="fxtrt[serve] is not installed")

import fxtrt
from fxtrt.errors import SettingsError
from fxtrt.serving import tuned_file, tuner
from fxtrt.serving.load import Measured, highest_rate
from fxtrt.serving.simulation import Fleet, ServiceTimes, simulate
from fxtrt.serving.tuned_file import tuned_path, tuned_settings, write_tuned
from fxtrt.serving.tuner import Candidate, Ready, Space, Trial, Tuned, table, tune

PLAIN = Space(slots=(1, 2, 4, 8), graphs=(False,), delays=())


class Machine:
    """A GPU on which so many calls really run at once: others take turns.

    It stands in place of the measurements, and the simulation in place of the load.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at_once: int, seconds: Callable[[int], float]
    ) -> None:
        self.opened: list[tuple[int, bool]] = []
        self._at_once, self._seconds = at_once, seconds
        monkeypatch.setattr(tuner, "_closed_loop", self._closed_loop)
        monkeypatch.setattr(tuner, "_under_load", self._under_load)

    def open(self, slots: int, graphs: bool) -> Ready:
        self.opened.append((slots, graphs))
        return Ready(lambda images: images, [0], 4)

    def _time(self, batch: int, slots: int, graphs: bool = False) -> float:
        return self._seconds(batch) * max(1, slots / self._at_once) * (0.9 if graphs else 1.0)

    def _closed_loop(self, ready: Ready, candidate: Candidate, seconds: float) -> float:
        return self._time(candidate.max_batch, candidate.slots, candidate.cuda_graphs)

    def _under_load(
        self, ready: Ready, candidate: Candidate, first: float, p99: float, seconds: float
    ) -> Trial:
        times = ServiceTimes(
            {
                (batch, slots): self._time(batch, slots, candidate.cuda_graphs)
                for batch in (1, 2, 4)
                for slots in range(1, candidate.slots + 1)
            }
        )
        fleet = Fleet(
            workers=candidate.slots,
            max_batch=candidate.max_batch,
            max_delay=candidate.max_delay,
            queue_size=10_000,
        )

        def measure(rate: float) -> Measured:
            found = simulate(times, fleet, rate, seconds=5.0)
            return Measured(rate, 5.0, len(found.latencies), found.latencies)

        return tuner._summary(candidate, highest_rate(measure, first, p99))


def batched(images: int) -> float:
    """Four images take twice the time of one."""
    return 0.010 + 0.010 * (images - 1) / 3


def test_what_serves_most_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Trial] = []
    machine = Machine(monkeypatch, 2, batched)
    tuned = tune(machine.open, 0.15, PLAIN, tell=told.append)
    assert list(tuned.trials) == told
    assert tuned.chosen.candidate == Candidate(slots=2, max_batch=4)
    # Two calls of four images in 20 ms are 400/s, and a single slot without batches does 100/s.
    assert 340 < tuned.chosen.rate < 425
    alone = next(trial for trial in tuned.trials if trial.candidate == Candidate())
    assert 80 < alone.rate < 100
    assert machine.opened == [(1, False), (2, False), (4, False)]
    assert tuned.trials[-1].candidate.slots == 8
    assert tuned.trials[-1].note == "not tried: 4 slots bring no more than fewer do"
    text = table(tuned)
    assert text.count("chosen") == 1
    assert "% less; then at" in text


def test_graphs_and_delays_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2, batched)
    tuned = tune(machine.open, 0.15, Space((1, 2), (True, False), delays=(0.004,)))
    assert tuned.chosen.candidate.cuda_graphs
    assert tuned.chosen.candidate.slots == 2
    delayed = [trial.candidate for trial in tuned.trials if trial.candidate.max_delay]
    assert delayed == [Candidate(slots=2, max_batch=4, max_delay=0.004, cuda_graphs=True)]
    assert machine.opened == [(1, True), (2, True), (1, False), (2, False), (2, True)]


def test_batches_that_save_nothing_are_not_tried_under_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, 1, lambda images: 0.01 * images)
    tuned = tune(machine.open, 0.1, Space((1,), (False,), delays=()))
    assert [trial.candidate.max_batch for trial in tuned.trials] == [1, 2, 4]
    assert [trial.rate > 0 for trial in tuned.trials] == [True, False, False]
    assert tuned.trials[1].note == "10.00 ms an image, and 10.00 in a smaller batch"


def test_a_bound_that_nothing_keeps_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 1, lambda images: 0.03)
    tuned = tune(machine.open, 0.02, Space((1, 2), (False,), delays=()))
    assert [trial.rate for trial in tuned.trials] == [0.0, 0.0]
    with pytest.raises(SettingsError, match=r"within 20 ms here: a batch alone takes 30\.0 ms"):
        table(tuned)


def test_a_real_server_is_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot and one image at a time: nothing but the load takes time."""

    def model(images: list[Any]) -> list[Any]:
        time.sleep(0.02)
        return images

    monkeypatch.setattr(tuner, "_MOST_POINTS", 2)
    ready = Ready(model, [0], 1)
    tuned = tune(lambda slots, graphs: ready, 0.1, Space((1,), (False,), delays=()), seconds=0.2)
    assert 0.0 < tuned.chosen.rate <= 50.0
    assert tuned.chosen.p99 >= 0.02


@pytest.mark.parametrize("numbers", [(0.0, 1.0), (math.nan, 1.0), (1.0, 0.0), (1.0, math.inf)])
def test_numbers_that_make_no_sense_are_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="above 0"):
        tune(lambda slots, graphs: Ready(list, [0], 1), numbers[0], seconds=numbers[1])


def trial(rate: float, **fields: Any) -> Trial:
    return Trial(Candidate(**fields), rate, 0.01, 0.02, "at 9/s too much")


def test_of_equal_rates_the_simplest_is_chosen() -> None:
    simple, more = trial(98.0, slots=2, max_batch=4), trial(100.0, slots=4, max_batch=4)
    delayed = trial(99.0, slots=2, max_batch=4, max_delay=0.001)
    slow = trial(90.0)
    tuned = Tuned([more, delayed, slow, simple], 0.05)
    assert tuned.chosen is simple
    lines = table(tuned).splitlines()[2:]
    assert [line.split("  ")[-1].strip() for line in lines] == [
        "as fast, and not simpler",
        "as fast, and not simpler",
        "8% less; then at 9/s too much",
        "chosen",
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned") / "model.fxtrt"
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    with torch.no_grad():
        compiled = fxtrt.compile(
            model, (torch.rand(1, 3, 8, 8),), engine="reference", cache_dir=None
        )
    fxtrt.save(compiled, path, weights=True)
    return path


TUNED = Tuned([trial(50.0), trial(100.0, slots=2, max_batch=4, max_delay=0.001)], 0.05)
CHOSEN = {"slots": 2, "max_batch": 4, "max_delay": 0.001, "cuda_graphs": False}


@pytest.fixture
def written(saved: Path) -> Path:
    return write_tuned(saved, TUNED)


def test_what_was_written_is_read(saved: Path, written: Path) -> None:
    assert written == tuned_path(saved) == saved.with_name("model.tuned.json")
    assert tuned_settings(saved) == CHOSEN
    rows = json.loads(written.read_text())["trials"]
    assert [row["rate"] for row in rows] == [50.0, 100.0]


def test_without_a_file_there_is_advice(saved: Path) -> None:
    tuned_path(saved).unlink(missing_ok=True)
    text = tuned_settings(saved)
    assert isinstance(text, str)
    assert "there is no" in text
    assert f"fxtrt tune {saved} measures it here" in text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("device", "measured with another device ("),
        ("engine", "measured with another engine ("),
        ("versions", "measured with other versions (torch"),
        ("file", "measured with another content of the file"),
    ],
)
def test_what_was_measured_elsewhere_is_ignored(
    saved: Path, written: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    here = tuned_file._where(saved, {})
    other = {**here["versions"], "torch": "1.0"} if name == "versions" else "another"
    monkeypatch.setattr(tuned_file, "_where", lambda *_: {**here, name: other})
    text = tuned_settings(saved)
    assert isinstance(text, str)
    assert told in text


def test_a_file_that_was_saved_again_is_another(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.fxtrt"
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    with torch.no_grad():
        compiled = fxtrt.compile(
            model, (torch.rand(1, 3, 8, 8),), engine="reference", cache_dir=None
        )
    fxtrt.save(compiled, path, weights=True)
    tuned_path(path).write_bytes(write_tuned(saved, TUNED).read_bytes())
    assert "another content of the file" in str(tuned_settings(path))


def damage(text: str) -> dict[str, str]:
    record = json.loads(text)
    return {
        "empty": "",
        "cut": text[: len(text) // 2],
        "no JSON": "\x00" + text,
        "a list": "[]",
        "another number": text.replace('"slots": 2', '"slots": 3'),
        "no digest": json.dumps({k: v for k, v in record.items() if k != "sha256"}),
        "another format": json.dumps({**record, "format": 2}),
        "long": text + " " * (1 << 20),
        "deep": "[" * 100_000,
    }


@pytest.mark.parametrize("kind", list(damage('{"format": 1}')))
def test_a_damaged_file_is_ignored(saved: Path, written: Path, kind: str) -> None:
    written.write_text(damage(written.read_text())[kind])
    text = tuned_settings(saved)
    assert isinstance(text, str)
    assert "is ignored, because it is damaged" in text


@pytest.mark.parametrize(
    "settings",
    [
        {**CHOSEN, "slots": 0},
        {**CHOSEN, "max_batch": 10**9},
        {**CHOSEN, "max_delay": math.nan},
        {**CHOSEN, "slots": True},
        {**CHOSEN, "more": 1},
        {"slots": 1, "max_batch": "1"},
    ],
)
def test_settings_that_make_no_sense_are_ignored(
    saved: Path, written: Path, settings: dict[str, Any]
) -> None:
    """Also with the right digest."""
    record = json.loads(written.read_text())
    del record["sha256"]
    record["settings"] = settings
    written.write_text(json.dumps({**record, "sha256": tuned_file._digest(record)}))
    assert "damaged" in str(tuned_settings(saved))


def test_a_folder_in_its_place_is_ignored(saved: Path, written: Path) -> None:
    written.unlink()
    written.mkdir()
    assert "it cannot be read" in str(tuned_settings(saved))
    written.rmdir()
