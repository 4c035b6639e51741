"""Search a ranking for few units that make a test pass, in a bounded number of tests."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Found", "few_that_pass"]

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """Units with which the test passes.

    ended: whether the search came to its end. If the test is monotone, it then fails without any
           one of the units.
    """

    units: tuple[T, ...]
    ended: bool


class _Exhausted(Exception):
    """The number of tests is used up."""


def few_that_pass(
    ranked: Sequence[T], passes: Callable[[frozenset[T]], bool], most_tests: int
) -> Found[T] | None:
    """Return few of `ranked` with which `passes` is true, or None if it is not for all of them.

    The shortest beginning of the ranking that passes is found by doubling and halving. Its last
    unit is needed; what else is needed is looked for, by the same means, among those before it. So
    m units of n take some 2 m log(n) tests, and fewer if they stand at the beginning.

    Args:
        ranked: the units, those that most likely suffice first.
        most_tests: an upper bound on calls of `passes`; at least 1. The last of these is for all
            units, if nothing else has passed.
    """
    return _Search(ranked, passes, most_tests).run()


class _Search(Generic[T]):
    def __init__(
        self, ranked: Sequence[T], passes: Callable[[frozenset[T]], bool], most_tests: int
    ) -> None:
        self._passes, self._left = passes, most_tests
        self._known: dict[frozenset[T], bool] = {}
        self._all = list(ranked)
        self._best: list[T] | None = None

    def run(self) -> Found[T] | None:
        needed: list[T] = []
        candidates = list(self._all)
        try:
            while not self._test(needed):
                count = self._shortest(needed, candidates)
                if count is None:
                    return None
                needed.append(candidates[count - 1])
                candidates = candidates[: count - 1]
                self._best = needed + candidates
        except _Exhausted:
            if self._best is None and not self._passes(frozenset(self._all)):
                return None
            return Found(self._in_order(self._all if self._best is None else self._best), False)
        return Found(self._in_order(needed), True)

    def _shortest(self, needed: list[T], candidates: list[T]) -> int | None:
        """Return a number of candidates that passes with `needed`, while one fewer does not."""
        failing, passing = 0, 1
        while not self._test(needed + candidates[:passing]):
            if passing >= len(candidates):
                return None
            failing, passing = passing, min(2 * passing, len(candidates))
        while passing - failing > 1:
            middle = (failing + passing) // 2
            if self._test(needed + candidates[:middle]):
                passing = middle
            else:
                failing = middle
        return passing

    def _test(self, units: list[T]) -> bool:
        key = frozenset(units)
        if key not in self._known:
            # One test is kept for all units, so that an answer is known in the end.
            is_reserved = self._best is None and key != frozenset(self._all)
            if self._left <= int(is_reserved):
                raise _Exhausted
            self._left -= 1
            self._known[key] = self._passes(key)
        if self._known[key]:
            self._best = list(units)
        return self._known[key]

    def _in_order(self, units: Sequence[T]) -> tuple[T, ...]:
        chosen = frozenset(units)
        return tuple(unit for unit in self._all if unit in chosen)
