"""Whatever fails while a batch runs, each of its requests gets its own answer or error."""

from __future__ import annotations

import weakref
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from serving_fakes import (
    SOON,
    ByHand,
    Faulty,
    MakeByHand,
    Picture,
    ask,
    kind_of,
)

import fxtrt
from fxtrt.errors import ServerClosed, ServingError, SlotTimeout, WorkerDied


def test_one_bad_image_fails_alone(by_hand: MakeByHand, model: Faulty) -> None:
    server = by_hand()
    futures = [server.submit(Picture(marker, is_bad=marker == 2)) for marker in range(4)]
    server.serve(0, server.take(0) or [])
    with pytest.raises(ValueError, match="picture 2 is bad"):
        futures[2].result(0)
    assert [f.result(0)[1] for f in futures if f is not futures[2]] == [0, 1, 3]
    assert model.runs == [(0, 1, 2, 3), (0,), (1,), (2,), (3,)]


def test_a_batch_without_memory_runs_in_halves(by_hand: MakeByHand, model: Faulty) -> None:
    server = by_hand()
    futures = ask(server, 0, 1, 2, 3)
    model.fault = "memory"
    server.serve(0, server.take(0) or [])
    assert [future.result(0)[1] for future in futures] == [0, 1, 2, 3]
    assert model.runs == [(0, 1, 2, 3), (0, 1), (2, 3)]


def test_a_failed_request_keeps_no_tensor_of_the_batch(by_hand: MakeByHand) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    class Failing:
        def __call__(self, images: list[Any]) -> list[Any]:
            scratch = torch.zeros(10)
            seen.append(weakref.ref(scratch))
            raise ValueError("no")

    server = ByHand(Failing(), workers=1)
    images = [torch.zeros(1), torch.zeros(1)]
    seen += map(weakref.ref, images)
    futures = [server.submit(image) for image in images]
    server.serve(0, server.take(0) or [])
    del images
    assert [type(future.exception(0)) for future in futures] == [ValueError] * 2
    assert [one() for one in seen] == [None] * len(seen)
    server.close(timeout=0.0)


def test_a_device_that_fails_ends_the_server(by_hand: MakeByHand, model: Faulty) -> None:
    server = by_hand(workers=2, max_batch=1)
    ran, elsewhere, waiting = ask(server, 0, 1, 2)
    batch, other = server.take(0), server.take(1)
    model.fault = "device"
    server.serve(0, batch or [])
    for future in (ran, elsewhere, waiting):
        with pytest.raises(WorkerDied, match="device-side assert") as died:
            future.result(0)
        assert "device-side" in str(died.value.__cause__)
    assert (server.ready, server.live) == (False, False)
    with pytest.raises(ServerClosed, match="needs a new process"):
        ask(server, 3)
    server.serve(1, other or [])  # What the other worker still finishes is dropped.
    assert server.close(timeout=1.0)


def test_a_thread_that_is_to_end_fails_its_batch_and_lives_on(model: Faulty) -> None:
    with fxtrt.Server(model, batch_by=kind_of) as server:
        model.fault = "thread"
        (lost,) = ask(server, 0)
        with pytest.raises(WorkerDied, match="SystemExit"):
            lost.result(SOON)
        (next_one,) = ask(server, 1)
        assert next_one.result(SOON) == ("answer to", 1)
        assert server.health().workers_alive == 1
        assert server.live


def test_a_thread_interrupted_between_queue_and_model_loses_nothing(
    model: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fxtrt.Server(model, batch_by=kind_of) as server:
        serve, interrupts = server._workers[0].serve, [KeyboardInterrupt("now")]

        def interrupted(batch: list[Any]) -> None:
            if interrupts:
                raise interrupts.pop()
            serve(batch)

        monkeypatch.setattr(server._workers[0], "serve", interrupted)
        with pytest.raises(WorkerDied, match="KeyboardInterrupt"):
            ask(server, 0)[0].result(SOON)
        assert ask(server, 1)[0].result(SOON) == ("answer to", 1)
    assert server.health().running == 0


def test_waiting_for_a_slot_is_not_tried_again_for_each_image() -> None:
    runs = []

    def model(images: list[Any]) -> list[Any]:
        runs.append(len(images))
        raise SlotTimeout("none of the 4 slots became free in 60 s")

    server = ByHand(model, workers=1)
    futures = [server.submit(torch.zeros(1)) for _ in range(3)]
    server.serve(0, server.take(0) or [])
    assert runs == [3]
    assert all(isinstance(future.exception(0), SlotTimeout) for future in futures)
    server.close(timeout=0.0)


@pytest.mark.parametrize("answers", [[1], [1, 2, 3], {"boxes": 1}, None, 7])
def test_a_model_that_answers_another_number_of_images_fails(answers: Any) -> None:
    with fxtrt.Server(lambda images: answers if len(images) > 1 else [], max_batch=2) as server:
        server.submit(torch.zeros(1))
        futures = [server.submit(torch.zeros(1)) for _ in range(2)]
        for future in futures:
            with pytest.raises(ServingError, match="one answer for each"):
                future.result(SOON)


def test_a_callback_that_raises_harms_nobody_else(by_hand: MakeByHand) -> None:
    server = by_hand()
    first, second = ask(server, 0, 1)

    def leave(_: Future[Any]) -> None:
        raise SystemExit

    first.add_done_callback(leave)
    server.serve(0, server.take(0) or [])
    assert [first.result(0)[1], second.result(0)[1]] == [0, 1]
