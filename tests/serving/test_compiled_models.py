"""A server answers as the compiled detector itself does, and takes its settings from it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")

from small_torchvision import images, small_rcnn
from torchvision.models.detection import FasterRCNN

import fxtrt
from fxtrt.numerics.compare import compare

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_grad")]


@pytest.fixture(scope="module")
def detector() -> Any:
    with torch.no_grad():
        return fxtrt.compile(
            small_rcnn(FasterRCNN),
            (images(2),),
            engine="reference",
            cache_dir=None,
            slots=2,
            most_images=3,
        )


def test_answers_are_those_of_the_model_for_mixed_sizes(detector: Any) -> None:
    first, second = images(2)
    asked = [first, second, first.flip(2), second.flip(2), first, second.flip(1)]
    expected = [detector([image])[0] for image in asked]
    assert all(len(one["boxes"]) for one in expected)

    async def ask(server: fxtrt.Server) -> list[Any]:
        return await asyncio.gather(*map(server.infer, asked))

    with fxtrt.Server(detector) as server:
        assert (server.settings.workers, server.settings.max_batch) == (2, 3)
        answers = asyncio.run(ask(server))
        text = server.metrics().decode()
    for answer, own in zip(answers, expected, strict=True):
        assert torch.equal(answer["labels"], own["labels"])
        assert all(difference.agrees for difference in compare(answer, own))
    assert 'fxtrt_fallback_calls_total{model="model",module=""} 0.0' in text


def test_mixed_sizes_in_one_batch_are_padded_as_by_the_model(detector: Any) -> None:
    asked = images(2)
    expected = detector(asked)
    sizes: list[int] = []
    both_wait = threading.Event()

    def model(batch: list[torch.Tensor]) -> Any:
        sizes.append(len(batch))
        assert both_wait.wait(60)
        return detector(batch)

    with fxtrt.Server(model, batch_by="any", max_batch=2) as server:
        first = server.submit(asked[0])
        while not server.health().running:
            time.sleep(0.001)
        futures = [server.submit(image) for image in asked]
        both_wait.set()
        answers = [future.result(60) for future in futures]
        first.result(60)
    assert sizes == [1, 2]
    for answer, own in zip(answers, expected, strict=True):
        assert all(torch.equal(answer[name], own[name]) for name in own)
