"""Waiting requests form batches by shape, in order of priority, and wait for nothing in vain."""

from __future__ import annotations

from typing import Any

import torch
from serving_fakes import (
    SOON,
    Clock,
    Gate,
    MakeByHand,
    ask,
    kind_of,
    markers,
)

import fxtrt


def test_an_idle_server_runs_a_request_at_once(gate: Gate) -> None:
    with fxtrt.Server(gate, max_delay=60.0) as server:
        (future,) = ask(server, 1)
        gate.enter()
        gate.go()
        assert future.result(SOON) == 1


def test_a_batch_forms_while_the_one_before_runs(gate: Gate) -> None:
    with fxtrt.Server(gate, batch_by=kind_of, max_batch=3) as server:
        futures = ask(server, 0)
        gate.enter()
        futures += ask(server, 1, 2, 3, 4)
        gate.go()
        assert [future.result(SOON) for future in futures] == [0, 1, 2, 3, 4]
    assert gate.batches == [[0], [1, 2, 3], [4]]


def test_a_batch_waits_for_others_only_while_something_runs(
    by_hand: MakeByHand, clock: Clock
) -> None:
    server = by_hand(workers=2, max_delay=0.5)
    ask(server, 0)
    first = server.take(0)
    assert first
    ask(server, 1, timeout=30.0)
    assert server.take(1) == []
    clock.now += 0.4
    ask(server, 2)
    assert server.take(1) == []
    clock.now += 0.11
    second = server.take(1)
    assert markers(second) == [1, 2]
    ask(server, 3)
    server.serve(0, first)
    server.serve(1, second or [])
    assert markers(server.take(0)) == [3]


def test_a_full_batch_waits_for_nothing(by_hand: MakeByHand) -> None:
    server = by_hand(workers=3, max_delay=60.0)
    ask(server, 0)
    assert server.take(0)
    ask(server, 1, kind="b")
    ask(server, 2, 3, 4, 5)
    assert markers(server.take(1)) == [2, 3, 4, 5]
    assert server.take(2) == []


def test_no_request_waits_longer_for_others_than_half_its_time(
    by_hand: MakeByHand, clock: Clock
) -> None:
    server = by_hand(workers=2, max_delay=60.0)
    ask(server, 0)
    assert server.take(0)
    ask(server, 1, timeout=1.0)
    clock.now += 0.5
    assert markers(server.take(1)) == [1]


def test_images_of_other_shapes_are_in_other_batches() -> None:
    sizes = []

    def model(images: list[torch.Tensor]) -> list[Any]:
        sizes.append({image.shape for image in images})
        return [image.shape for image in images]

    images = [torch.zeros(3, height, 4) for height in (4, 5, 4, 5, 4)]
    for batch_by, most in (("shape", 1), ("any", 2)):
        sizes.clear()
        with fxtrt.Server(model, batch_by=batch_by) as server:
            futures = [server.submit(image) for image in images for _ in range(20)]
            assert [f.result(SOON) for f in futures] == [i.shape for i in images for _ in range(20)]
        assert max(map(len, sizes)) == most


def test_detectron2_images_batch_by_the_shape_of_their_image(
    by_hand: MakeByHand,
) -> None:
    server = by_hand(batch_by="shape")
    for height in (4, 4, 5):
        server.submit({"image": torch.zeros(3, height, 4), "height": height * 2, "width": 9})
    assert [len(server.take(0) or []), len(server.take(0) or [])] == [2, 1]


def test_priorities_come_first_and_nobody_waits_for_ever(by_hand: MakeByHand, clock: Clock) -> None:
    server = by_hand(max_batch=1, aging=0.1)
    ask(server, 0)
    ask(server, 1, priority=5)
    ask(server, 2, priority=-1)
    assert [markers(server.take(0)) for _ in range(3)] == [[1], [0], [2]]
    ask(server, 3)
    clock.now += 0.6  # More than five steps of priority are worth.
    ask(server, 4, priority=5)
    assert [markers(server.take(0)) for _ in range(2)] == [[3], [4]]


def test_the_most_urgent_request_decides_which_shape_is_next(by_hand: MakeByHand) -> None:
    server = by_hand()
    ask(server, 0, 1)
    ask(server, 2, kind="b", priority=1)
    ask(server, 3)
    assert [markers(server.take(0)) for _ in range(2)] == [[2], [0, 1, 3]]
