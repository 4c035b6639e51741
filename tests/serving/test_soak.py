"""A server under changing load and faults leaks no memory, slot, thread or descriptor."""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
import torch

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")

from PIL import Image
from soak import Left, Sample, slope, soak

import fxtrt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

MOST_GROWTH = 1.0
"""MB a minute."""
MOST_NOISE = 4.0
"""MB by which a short run may grow: lazy imports, pools of allocators."""


@pytest.fixture(scope="module")
def png() -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize((30, 20)).convert("RGB").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def _unlogged() -> Iterator[None]:
    """Pytest keeps what is logged, with tracebacks that hold the requests."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def compiled_model() -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers).eval().to(device)
    options: Any = {} if device == "cuda" else {"engine": "reference"}
    with torch.no_grad():
        example = torch.rand(1, 3, 20, 30, device=device)
        return fxtrt.compile(
            model, (example,), cache_dir=None, slots=2, min_cluster_size=1, **options
        )


@pytest.mark.usefixtures("_unlogged")
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(20.0, marks=pytest.mark.nightly),
        pytest.param(300.0, marks=[pytest.mark.gpu, pytest.mark.nightly]),
        pytest.param(1200.0, marks=[pytest.mark.nightly, pytest.mark.timeout(1500)]),
    ],
)
def test_nothing_leaks(seconds: float, png: bytes) -> None:
    compiled = compiled_model()
    images = [torch.rand(3, 20, 30) for _ in range(3)]
    # What is made once, as threads of torch and imports of the server, is made before.
    soak(compiled, images, png, 3.0)
    left = soak(compiled, images, png, seconds)
    assert left.wrong == 0
    assert_served(left)
    assert left.before is not None
    assert left.after is not None
    assert left.after.threads == left.before.threads
    assert left.after.descriptors == left.before.descriptors
    assert left.requests == 0
    assert_no_slot_is_lost(compiled, images[0][None])
    settled = left.samples[len(left.samples) // 3 :]
    assert max(one.threads for one in settled) <= left.before.threads + 30
    if seconds > 200:
        assert slope(settled) < MOST_GROWTH
    else:
        half = len(settled) // 2
        first, last = (
            statistics.median(one.memory for one in part)
            for part in (settled[:half], settled[half:])
        )
        assert last - first < MOST_NOISE


def assert_served(left: Left) -> None:
    """Every kind of outcome has come about, and most requests were answered."""
    assert {"QueueFull", "CancelledError", "RequestTimeout", "WorkerDied"} <= set(left.outcomes)
    assert left.outcomes["answered"] > sum(left.outcomes.values()) / 3
    assert {"200", "400", "gone"} <= set(left.over_http)
    assert set(left.over_http) <= {"200", "400", "500", "503", "gone"}


def assert_no_slot_is_lost(compiled: Any, image: torch.Tensor) -> None:
    """Warming up takes all slots at once, and fails if one is not given back."""
    device = next(compiled.parameters()).device
    fxtrt.warm_up(compiled, (image.to(device),))
    (row,) = fxtrt.report(compiled).runtime
    assert (row.slots, row.made) == (2, 2)


def test_growth_is_seen() -> None:
    noise = (0.0, 0.4, -0.3, 0.1, -0.2, 0.3, 0.0)
    flat = [Sample(i / 6, 100.0 + n, 5, 5) for i, n in enumerate(noise)]
    grows = [Sample(i / 6, 100.0 + 2.0 * i / 6 + n / 10, 5, 5) for i, n in enumerate(noise)]
    assert abs(slope(flat)) < MOST_GROWTH
    assert slope(grows) == pytest.approx(2.0, abs=0.5)
