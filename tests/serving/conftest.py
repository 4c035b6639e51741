"""Fixtures of servers that tests run by hand, and of models that wait for a sign."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from serving_fakes import ByHand, Clock, Faulty, Gate, MakeByHand, kind_of


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A model that stops in each run until it may go on."""
    made = Gate()
    yield made
    made.go()


@pytest.fixture
def clock() -> Clock:
    """The clock of the servers that `by_hand` makes."""
    return Clock()


@pytest.fixture
def model() -> Faulty:
    """The model of the servers that `by_hand` makes."""
    return Faulty()


@pytest.fixture
def by_hand(model: Faulty, clock: Clock) -> Iterator[MakeByHand]:
    """Make servers without threads, from their options."""
    made = []

    def make(**options: Any) -> ByHand:
        options = {"batch_by": kind_of, "clock": clock, "max_batch": 4, **options}
        made.append(ByHand(model, **options))
        return made[-1]

    yield make
    for server in made:
        server.close(drain=False, timeout=0.0)
