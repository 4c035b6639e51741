"""Find which nodes of a model must leave its narrow type to pass a gate, by simulation alone."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..errors import AccuracyError
from .gate import Judge, Predictions
from .ranking import LocalErrors, by_harm_for_cost
from .search import Found, few_that_pass
from .simulation import MILDEST_FIRST, Simulation, Unit

__all__ = ["Demotion", "Demotions", "find_demotions"]

log = logging.getLogger(__name__)

_FEW_ITEMS = 4
"""The number of items that a search begins with. It is doubled while these prove too few."""
_MEASURED_ITEMS = 2
_MOST_RUNS = 192
"""The most runs of one item that searches make, apart from those that judge on all items."""
_MOST_EXPLAINED = 8
"""The most demotions of which each is undone once, to see what it wins."""


@dataclass(frozen=True, slots=True)
class Demotion:
    """A call that leaves a narrow type.

    setting: the setting that demotes it.
    error:   of its result if it alone is narrow, relative to the result.
    wins:    how much lower the metric is without this demotion, if that was tried.
    """

    unit: Unit
    setting: str
    error: float
    wins: float | None = None


@dataclass(frozen=True, slots=True)
class Demotions:
    """The result of a search.

    before, after: the loss of the simulated model without and with the demotions, on all items.
    runs:          how many runs of one item were simulated.
    ended:         whether the search came to its end: no fewer of these would do.
    """

    demotions: tuple[Demotion, ...]
    before: float
    after: float
    runs: int
    ended: bool = True

    def entries(self, setting: str) -> tuple[str, ...]:
        """Return the patterns that a setting gets."""
        return tuple(one.unit.entry for one in self.demotions if one.setting == setting)


def find_demotions(judge: Judge, simulation: Simulation, most_loss: float) -> Demotions:
    """Return few demotions with which the simulated model loses at most `most_loss`.

    Raises:
        AccuracyError: the model loses more than that even if all of it computes in float32.
    """
    return _Finder(judge, simulation, most_loss).find()


_Entry = tuple[str, str]
"""A setting, and a pattern in it."""


class _Finder:
    def __init__(self, judge: Judge, simulation: Simulation, most_loss: float) -> None:
        self._judge, self._simulation, self._most_loss = judge, simulation, most_loss
        self._units = {
            (setting, unit.entry): unit
            for setting, units in simulation.units.items()
            for unit in units
        }
        self._errors: dict[_Entry, float] = {}
        self._losses: dict[tuple[frozenset[_Entry], tuple[int, ...]], float] = {}
        self._runs = 0

    def find(self) -> Demotions:
        as_it_is = self._predict(())
        self._require_simulated()
        before = self._judge.loss(as_it_is)
        if before <= self._most_loss:
            return Demotions((), before, before, self._runs)
        log.info("simulated, the model loses %g: searching what to demote", before)
        self._measure()
        spent, found = 0, list[_Entry]()
        for items in self._subsets(as_it_is):
            begun = self._runs
            tests = max(1, (_MOST_RUNS - spent) // len(items))
            result = self._search(items, found, tests)
            spent += self._runs - begun
            if result is None:
                continue
            found = list(result.units)
            after = self._loss(found)
            if after <= self._most_loss:
                explained = self._explained(found, items, before - after, _MOST_RUNS - spent)
                return Demotions(explained, before, after, self._runs, result.ended)
        raise AccuracyError(self._why_nothing_helps(before))

    def _search(
        self, items: Sequence[int], first: Sequence[_Entry], tests: int
    ) -> Found[_Entry] | None:
        """Search the strongest demotions that are needed if all milder ones are made, then these.

        Args:
            first: what an earlier search found, which is tried before all else.
        """
        fixed, ended = list[_Entry](), True
        for number in reversed(range(len(MILDEST_FIRST))):
            milder = [e for e in self._units if e[0] in MILDEST_FIRST[:number]]
            passes = self._passes(items, [*fixed, *milder])
            ranked = self._ranked(MILDEST_FIRST[number], first, fixed)
            done = self._runs
            result = few_that_pass(ranked, passes, tests)
            tests = max(1, tests - (self._runs - done) // len(items))
            if result is None:
                return None
            fixed += result.units
            ended &= result.ended
        return Found(tuple(fixed), ended)

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

    def _passes(
        self, items: Sequence[int], besides: Sequence[_Entry]
    ) -> Callable[[frozenset[_Entry]], bool]:
        def passes(entries: frozenset[_Entry]) -> bool:
            demoted = entries | set(besides)
            if not demoted:
                return False  # The loss of the model as it is shows on these items.
            loss = self._loss(demoted, items)
            log.info("%d of %d demotions: loses %g", len(demoted), len(self._units), loss)
            return loss <= self._most_loss

        return passes

    def _loss(self, entries: Collection[_Entry], items: Sequence[int] | None = None) -> float:
        key = frozenset(entries), tuple(self._judge.items if items is None else items)
        if key not in self._losses:
            self._losses[key] = self._judge.loss(self._predict(entries, items), items)
        return self._losses[key]

    def _predict(
        self, entries: Collection[_Entry], items: Sequence[int] | None = None
    ) -> Predictions:
        demoted: defaultdict[str, list[str]] = defaultdict(list)
        for setting, entry in entries:
            demoted[setting].append(entry)
        self._simulation.demote(demoted)
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
        self._simulation.demote({})
        local = LocalErrors(self._simulation.graphs)
        last = len(self._judge.items) - 1
        items = sorted({i * last // max(1, _MEASURED_ITEMS - 1) for i in range(_MEASURED_ITEMS)})
        with self._simulation.in_place(local.measure) as model:
            self._judge.predictions(model, items)
        self._runs += len(items)
        self._errors = local.errors

    def _ranked(
        self, setting: str, first: Sequence[_Entry], fixed: Sequence[_Entry]
    ) -> list[_Entry]:
        """Return what a setting may demote, unless a stronger one did, most harmful first."""
        done = {entry for _, entry in fixed}
        units = [
            unit for (of, entry), unit in self._units.items() if of == setting and entry not in done
        ]
        ranking = [(setting, u.entry) for u in by_harm_for_cost(units, setting, self._errors)]
        known = [entry for entry in first if entry in set(ranking)]
        return list(dict.fromkeys([*known, *ranking]))

    def _explained(
        self, found: Sequence[_Entry], items: Sequence[int], won: float, runs: int
    ) -> tuple[Demotion, ...]:
        """Undo each of a few demotions, to see what it wins."""
        wins: dict[_Entry, float] = {}
        if len(found) == 1:
            wins = {found[0]: won}
        elif len(found) <= _MOST_EXPLAINED and (len(found) + 1) * len(items) <= runs:
            loss = self._loss(found, items)
            for entry in found:
                wins[entry] = self._loss([one for one in found if one != entry], items) - loss
        return tuple(
            Demotion(self._units[one], one[0], self._errors.get(one, 0.0), wins.get(one))
            for one in found
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
