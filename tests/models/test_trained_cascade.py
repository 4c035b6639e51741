"""MTCNN, a cascade with trained weights, finds the faces in photographs as it does in PyTorch."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from mtcnn_package import trained_mtcnn
from numpy.typing import NDArray
from torch.export import Dim

import fxtrt
from fxtrt.diagnostics.example_models import load_photograph

pytestmark = [
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore:.*non-writable:UserWarning"),
]

Photograph = NDArray[np.uint8]
_COUNTED = {0: Dim.DYNAMIC(min=1, max=512)}
_EXAMPLES: dict[str, tuple[tuple[int, ...], dict[int, Any]]] = {
    # The first network looks at the picture in all its scales, the others at what it found.
    "pnet": ((2, 3, 40, 50), {d: Dim.DYNAMIC(min=1, max=700) for d in (0, 2, 3)}),
    "rnet": ((4, 3, 24, 24), _COUNTED),
    "onet": ((4, 3, 48, 48), _COUNTED),
}


def portrait() -> Photograph:
    """Grace Hopper, from matplotlib: one face."""
    return (load_photograph() * 255).byte().permute(1, 2, 0).numpy()


def group() -> Photograph:
    """The portrait three times, in two sizes, and mirrored."""
    one = portrait()
    half = one[::2, ::2]
    return np.concatenate([one, np.concatenate([half, half[:, ::-1]])], 1)


def astronaut() -> Photograph:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    picture: Photograph = data.astronaut()
    return picture


def nobody() -> Photograph:
    """A collar and a flag, without the face."""
    return np.ascontiguousarray(portrait()[380:])


@cache
def cascades() -> tuple[Any, Any]:
    """The cascade in PyTorch, and one whose three networks are engines."""
    eager, fast = (trained_mtcnn(keep_all=True).eval() for _ in range(2))
    for name, (shape, varies) in _EXAMPLES.items():
        example = (torch.rand(shape),)
        network = getattr(fast, name)
        compiled = fxtrt.compile(network, example, dynamic_shapes=(varies,), engine="reference")
        setattr(fast, name, compiled)
    return eager, fast


def assert_whole(cascade: Any) -> None:
    """Each network is one engine, and no call left it."""
    for name in _EXAMPLES:
        report = fxtrt.report(getattr(cascade, name))
        assert (len(report.clusters), report.flops_share, report.rejections) == (1, 1.0, ())
        assert [row.fallbacks for row in report.runtime] == [()]


@pytest.mark.parametrize(
    ("picture", "faces"), [(portrait, 1), (group, 3), (astronaut, 1), (nobody, 0)]
)
def test_the_faces_are_those_of_eager(picture: Any, faces: int) -> None:
    eager, fast = cascades()
    photograph = picture()
    expected = eager.detect(photograph, landmarks=True)
    actual = fast.detect(photograph, landmarks=True)
    assert (0 if expected[0] is None else len(expected[0])) == faces
    if not faces:
        assert actual[0] is None
        return
    for one, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            one.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=1e-3
        )
    np.testing.assert_allclose(
        actual[1].astype(np.float64), expected[1].astype(np.float64), rtol=0, atol=1e-5
    )
    assert_whole(fast)


def test_a_batch_of_photographs() -> None:
    eager, fast = cascades()
    both = [portrait(), np.ascontiguousarray(portrait()[:, ::-1])]
    batch = torch.from_numpy(np.stack(both))
    (boxes, scores), (wanted, likely) = fast.detect(batch), eager.detect(batch)
    for i in range(2):
        np.testing.assert_allclose(boxes[i].astype(float), wanted[i].astype(float), atol=1e-3)
        np.testing.assert_allclose(scores[i].astype(float), likely[i].astype(float), atol=1e-5)
    assert_whole(fast)


def test_the_cascade_is_compiled_in_its_three_parts() -> None:
    cascade = trained_mtcnn(keep_all=True, post_process=False).eval()
    photograph = torch.from_numpy(portrait())
    fast = fxtrt.compile(cascade, (photograph,), engine="reference")
    torch.testing.assert_close(fast(photograph), cascade(photograph))
    rows = fxtrt.report(fast).clusters
    assert {path.split(".")[0] for row in rows for path in row.module_paths} == set(_EXAMPLES)
