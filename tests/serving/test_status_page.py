"""The page at / shows a server's state, keeps few images, and works in headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

import httpx
from http_server import http_server
from PIL import Image

from fxtrt.serving.http import HttpSettings
from fxtrt.serving.recent_images import RecentImages

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def detector(images: list[torch.Tensor]) -> list[dict[str, Any]]:
    """One sure detection and one that is not, on the left half of each image."""
    if any(image.shape[1] == 13 for image in images):
        raise ValueError("this image fails")
    return [
        {
            "boxes": torch.tensor([[0.0, 0.0, image.shape[2] / 2, image.shape[1]]] * 2),
            "scores": torch.tensor([0.2, 0.9]),
            "labels": torch.tensor([4, 7]),
        }
        for image in images
    ]


def jpeg(height: int = 600, width: int = 1000) -> bytes:
    file = BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http_server(detector, HttpSettings(recent_images=2)) as (address, _):
        assert httpx.post(f"http://{address}/detect", content=jpeg()).status_code == 200
        assert httpx.post(f"http://{address}/detect", content=jpeg(13, 20)).status_code == 500
        yield f"http://{address}"


def test_the_state_counts_requests(address: str) -> None:
    state = httpx.get(f"{address}/status").json()
    assert state["name"] == "detector"
    assert state["health"]["ready"]
    assert state["counts"]["answered"] == 1
    assert state["counts"]["failures"] == {"failure": 1}
    assert sum(count for _, count in state["latency"]) == 2
    assert state["latency"][-1][0] == "+Inf"


def test_an_image_is_kept_small_with_its_detections(address: str) -> None:
    (image,) = httpx.get(f"{address}/status").json()["images"]
    assert (image["width"], image["height"]) == (1000, 600)
    sure, unsure = image["boxes"]
    assert (sure["box"], sure["label"]) == ([0.0, 0.0, 0.5, 1.0], 7)
    assert (sure["score"], unsure["score"]) == pytest.approx((0.9, 0.2))
    reply = httpx.get(f"{address}/recent/{image['id']}.jpg")
    assert Image.open(BytesIO(reply.content)).size == (640, 384)
    assert httpx.get(f"{address}/recent/99.jpg").status_code == 404
    assert httpx.get(f"{address}/recent/x.jpg").status_code == 404


def test_images_are_not_kept_unless_asked_for() -> None:
    with http_server(detector) as (address, _):
        httpx.post(f"http://{address}/detect", content=jpeg())
        assert httpx.get(f"http://{address}/status").json()["images"] is None
        assert httpx.get(f"http://{address}/recent/1.jpg").status_code == 404


def test_only_the_last_images_are_kept_and_not_all_of_many() -> None:
    now = [0.0]
    recent = RecentImages(2, lambda: now[0])
    assert recent.is_due()
    assert not recent.is_due()
    now[0] = 0.5
    assert recent.is_due()
    for height in (3, 4, 5):
        recent.keep(torch.zeros(3, height, 8, dtype=torch.uint8), {"sem_seg": torch.zeros(2)})
    listed = recent.listed()
    assert listed is not None
    assert [(one["id"], one["height"], one["boxes"]) for one in listed] == [(3, 5, []), (2, 4, [])]
    assert recent.jpeg(1) is None
    assert not RecentImages(0).is_due()


def test_the_page_loads_nothing_from_elsewhere(address: str) -> None:
    reply = httpx.get(address)
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", reply.text)


def shown(address: str, profile: Path, *options: str) -> tuple[str, str]:
    """The page as it is after five seconds, and what it wrote to the console."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", *options]
    command += [f"--user-data-dir={profile}", address]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return result.stdout, "\n".join(x for x in result.stderr.splitlines() if "CONSOLE" in x)


def text_of(page: str, identity: str) -> str:
    found = re.search(rf'id="{identity}"[^>]*>(.*?)</(p|strong|dl|h1|code)>', page, re.DOTALL)
    assert found is not None
    return re.sub(r"<[^>]*>", " ", found[1]).strip()


@needs_chromium
def test_chromium_shows_state_histogram_and_detections(address: str, tmp_path: Path) -> None:
    page, console = shown(address, tmp_path)
    assert console == ""
    assert "<title>detector: ready</title>" in page
    assert text_of(page, "state") == "ready"
    assert re.search(r"not answered \(1 failure\)\s+1\b", text_of(page, "now"))
    assert text_of(page, "latency-text").startswith("Of 2 requests since the start, half took up")
    assert page.count("<figure>") == 1
    assert "label 7 0.90</figcaption>" in page  # the other one is below the score
    # Half of the picture's width, in the picture's own pixels.
    assert re.search(r'<rect x="0" y="0" width="500" height="600"', page)
    assert "/detect?min_score=0.5" in text_of(page, "curl")


@needs_chromium
def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    with http_server(detector, name="<b onclick=x>bold</b>") as (address, _):
        page, console = shown(f"http://{address}", tmp_path)
    assert console == ""
    assert "&lt;b onclick=x&gt;bold&lt;/b&gt;" in text_of(page, "name")
    assert "<b " not in page
