"""The search ends within its bound, its result passes, and of monotone tests it is minimal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxtrt.accuracy.search import few_that_pass

RANKED = st.integers(0, 24).map(range)
MOST = st.integers(1, 200)


def counted(
    passes: Callable[[frozenset[int]], bool],
) -> tuple[Callable[[frozenset[int]], bool], list[frozenset[int]]]:
    tests: list[frozenset[int]] = []

    def test(units: frozenset[int]) -> bool:
        tests.append(units)
        return passes(units)

    return test, tests


@given(ranked=RANKED, most=MOST, seed=st.integers(0, 2**30))
@settings(deadline=None)
def test_any_test_at_all(ranked: range, most: int, seed: int) -> None:
    """The test passes at random, but always in the same way for the same units."""
    test, tests = counted(lambda units: hash((seed, units)) % 3 == 0)
    found = few_that_pass(ranked, test, most)
    assert len(tests) <= most
    everything = frozenset(ranked)
    if hash((seed, everything)) % 3 == 0:
        assert found is not None
    if found is not None:
        assert frozenset(found.units) in tests
        assert hash((seed, frozenset(found.units))) % 3 == 0


@given(
    harms=st.lists(st.integers(0, 9), max_size=24),
    bound=st.integers(0, 30),
    together=st.booleans(),
    most=MOST,
)
@settings(deadline=None)
def test_monotone_harms(harms: list[int], bound: int, together: bool, most: int) -> None:
    """The harm of what is left adds up, or only the products of neighbours do."""

    def harm(units: frozenset[int]) -> int:
        left = [0 if i in units else harm for i, harm in enumerate(harms)]
        if together:
            return sum(a * b for a, b in itertools.pairwise(left))
        return sum(left)

    test, tests = counted(lambda units: harm(units) <= bound)
    found = few_that_pass(range(len(harms)), test, most)
    assert len(tests) <= most
    assert found is not None  # Without any unit nothing is left to do harm.
    assert harm(frozenset(found.units)) <= bound
    if found.ended:
        for unit in found.units:
            assert harm(frozenset(found.units) - {unit}) > bound


@pytest.mark.parametrize("place", [0, 1, 17, 499])
def test_one_of_many_takes_few_tests(place: int) -> None:
    test, tests = counted(lambda units: place in units)
    found = few_that_pass(range(500), test, 100)
    assert found is not None
    assert (found.units, found.ended) == ((place,), True)
    assert len(tests) <= 2 * math.log2(place + 1) + 4


def test_some_of_many() -> None:
    guilty = {3, 40, 41, 480}
    test, tests = counted(guilty.issubset)
    found = few_that_pass(range(500), test, 200)
    assert found is not None
    assert set(found.units) == guilty
    assert len(tests) <= 2 * len(guilty) * math.log2(500)


def test_nothing_to_demote() -> None:
    test, tests = counted(lambda units: True)
    found = few_that_pass(range(9), test, 5)
    assert found is not None
    assert (found.units, tests) == ((), [frozenset()])


@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("most", [1, 2, 99])
def test_nothing_helps(count: int, most: int) -> None:
    test, tests = counted(lambda units: False)
    assert few_that_pass(range(count), test, most) is None
    assert frozenset(range(count)) in tests
    assert len(tests) <= most


def test_an_early_end_still_passes() -> None:
    guilty = set(range(0, 500, 2))
    test, _ = counted(guilty.issubset)
    found = few_that_pass(range(500), test, 12)
    assert found is not None
    assert not found.ended
    assert guilty <= set(found.units)
