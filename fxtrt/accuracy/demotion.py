"""Find which nodes of a model must leave its narrow type to pass a gate, by simulation alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..errors import AccuracyError
from .gate import Judge, Predictions
from .ranking import LocalErrors, by_harm_for_cost
from .search import few_that_pass
from .simulation import Simulation, Unit

__all__ = ["Demoted", "Demotions", "find_demotions"]

log = logging.getLogger(__name__)

_FEW_ITEMS = 4
"""The number of items that a search begins with. It is doubled while these prove too few."""
_MEASURED_ITEMS = 2
_MOST_RUNS = 256
"""The most runs of one item that searches make, apart from those that judge on all items."""
_MOST_EXPLAINED = 8
"""The most demotions of which each is undone once, to see what it wins."""


@dataclass(frozen=True, slots=True)
class Demoted:
    """A call that leaves the narrow type.

    error: of its result if it alone is narrow, relative to the result.
    wins:  how much lower the metric is without this demotion, if that was tried.
    """

    unit: Unit
    error: float
    wins: float | None


@dataclass(frozen=True, slots=True)
class Demotions:
    """What a search found.

    before, after: the loss of the simulated model without and with the demotions, on all items.
    runs:          how many runs of one item were simulated.
    ended:         whether the search came to its end: no fewer of these would do.
    """

    demoted: tuple[Demoted, ...]
    before: float
    after: float
    runs: int
    ended: bool = True

    @property
    def entries(self) -> tuple[str, ...]:
        """Return the patterns that name the demoted calls."""
        return tuple(one.unit.entry for one in self.demoted)


def find_demotions(judge: Judge, simulation: Simulation, most_loss: float) -> Demotions:
    """Return few demotions with which the simulated model loses at most `most_loss`.

    Raises:
        AccuracyError: the model loses more than that even if all of it computes in float32.
    """
    return _Finder(judge, simulation, most_loss).find()


class _Finder:
    def __init__(self, judge: Judge, simulation: Simulation, most_loss: float) -> None:
        self._judge, self._simulation, self._most_loss = judge, simulation, most_loss
        self._units = {unit.entry: unit for unit in simulation.units}
        self._errors: dict[str, float] = {}
        self._losses: dict[tuple[frozenset[str], tuple[int, ...]], float] = {}
        self._runs = 0

    def find(self) -> Demotions:
        as_it_is = self._predict(())
        self._require_simulated()
        before = self._judge.loss(as_it_is)
        if before <= self._most_loss:
            return Demotions((), before, before, self._runs)
        log.info("simulated, the model loses %g: searching what to demote", before)
        self._measure()
        spent, found = 0, list[str]()
        for items in self._subsets(as_it_is):
            begun = self._runs
            tests = max(1, (_MOST_RUNS - spent) // len(items))
            result = few_that_pass(self._ranked(found), self._passes(items), tests)
            spent += self._runs - begun
            if result is None:
                continue
            found = list(result.units)
            after = self._loss(found)
            if after <= self._most_loss:
                demoted = self._explained(found, items, before - after, _MOST_RUNS - spent)
                return Demotions(demoted, before, after, self._runs, result.ended)
        raise AccuracyError(self._why_nothing_helps(before))

    def _subsets(self, as_it_is: Predictions) -> list[Sequence[int]]:
        """Return ever more items, evenly spaced, on which the loss shows; all of them at last."""
        every, subsets, count = self._judge.items, list[Sequence[int]](), _FEW_ITEMS
        while count < len(every):
            items = [i * len(every) // count for i in range(count)]
            if self._judge.can_judge(items):
                loss = self._judge.loss([as_it_is[item] for item in items], items)
                if loss > self._most_loss:
                    subsets.append(items)
            count *= 2
        return [*subsets, every]

    def _passes(self, items: Sequence[int]) -> Callable[[frozenset[str]], bool]:
        def passes(entries: frozenset[str]) -> bool:
            if not entries:
                return False  # The loss of the model as it is shows on these items.
            loss = self._loss(entries, items)
            log.info("%d of %d calls demoted: loses %g", len(entries), len(self._units), loss)
            return loss <= self._most_loss

        return passes

    def _loss(self, entries: Collection[str], items: Sequence[int] | None = None) -> float:
        key = frozenset(entries), tuple(self._judge.items if items is None else items)
        if key not in self._losses:
            self._losses[key] = self._judge.loss(self._predict(entries, items), items)
        return self._losses[key]

    def _predict(self, entries: Collection[str], items: Sequence[int] | None = None) -> Predictions:
        self._simulation.keep(entries)
        with self._simulation.in_place() as model:
            found = self._judge.predictions(model, items)
        self._runs += len(found)
        return found

    def _require_simulated(self) -> None:
        if not self._simulation.simulated_calls:
            reasons = "; ".join(self._simulation.reasons)
            raise AccuracyError(
                f"no image of the gate fits what was compiled, so they judge nothing: {reasons}"
            )

    def _measure(self) -> None:
        """Measure the local error of every unit, on few items in one run each."""
        self._simulation.keep(())
        local = LocalErrors(self._simulation.graphs)
        last = len(self._judge.items) - 1
        items = sorted({i * last // max(1, _MEASURED_ITEMS - 1) for i in range(_MEASURED_ITEMS)})
        with self._simulation.in_place(local.measure) as model:
            self._judge.predictions(model, items)
        self._runs += len(items)
        self._errors = local.errors

    def _ranked(self, first: Sequence[str]) -> list[str]:
        """Return all entries, those that an earlier search found before the others."""
        ranking = by_harm_for_cost(list(self._units.values()), self._errors)
        return list(dict.fromkeys([*first, *(unit.entry for unit in ranking)]))

    def _explained(
        self, found: Sequence[str], items: Sequence[int], won: float, runs: int
    ) -> tuple[Demoted, ...]:
        """Undo each of a few demotions, to see what it wins."""
        wins: dict[str, float] = {}
        if len(found) == 1:
            wins = {found[0]: won}
        elif len(found) <= _MOST_EXPLAINED and (len(found) + 1) * len(items) <= runs:
            loss = self._loss(found, items)
            for entry in found:
                wins[entry] = self._loss([one for one in found if one != entry], items) - loss
        return tuple(
            Demoted(self._units[one], self._errors.get(one, 0.0), wins.get(one)) for one in found
        )

    def _why_nothing_helps(self, before: float) -> str:
        metric, most = self._judge.gate.metric_name, self._judge.gate.most_loss
        wide = self._loss(list(self._units))
        lost = "is no number" if math.isinf(wide) else f"loses {wide:g}"
        return (
            f"with every call in float32, {metric} still {lost}, and {self._most_loss:g} is "
            f"allowed ({before:g} as compiled; {metric} of the model itself is "
            f"{self._judge.baseline:g}): no precision is to blame, and the metric may change by "
            f"that much for differences that are mere rounding. Give a larger most_loss than "
            f"{most:g}, or more images"
        )
