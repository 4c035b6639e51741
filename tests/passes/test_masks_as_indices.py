"""Writing to the places of a mask needs no list of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from passcheck import check_changes, check_keeps, targets
from torch import Tensor

from fxtrt.capture.export import trace
from fxtrt.passes import masks_as_indices

aten = torch.ops.aten
X = torch.arange(60.0).reshape(3, 4, 5) - 30


def _put(x: Tensor, indices: list[Tensor | None], value: float | Tensor = -1.0) -> Tensor:
    values = value if isinstance(value, Tensor) else x.new_full((), value)
    result: Tensor = aten.index_put.default(x, indices, values)
    return result


@pytest.mark.parametrize(
    "function",
    [
        lambda x: _put(x, list(aten.nonzero.default(x > 0).unbind(1))),
        lambda x: _put(x, list(aten.nonzero.default(x.sum(-1) > 0).unbind(-1))),
        lambda x: _put(x, [None, *aten.nonzero.default(x[0] > -20).unbind(1)]),
        lambda x: _put(x, [aten.nonzero.default(x[:, 0, 0] > 0)[:, 0]], x.new_full((1, 1), 3.0)),
        lambda x: aten.index_put.default(
            x, list(aten.nonzero.default(x.abs() < 5).unbind(1)), x.new_full((), 2.0), True
        ),
        lambda x: _put(x, list(aten.nonzero.default(x).unbind(1))),
    ],
    ids=["whole", "rows", "after_none", "one_dimension", "accumulate", "numbers"],
)
def test_the_mask_takes_the_place_of_its_places(function: Callable[[Tensor], Tensor]) -> None:
    gm = trace(function, (X,))
    check_changes(masks_as_indices, gm, (X,))
    gm.graph.eliminate_dead_code()
    assert "nonzero.default" not in targets(gm)
    assert targets(gm).count("index_put.default") == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: _put(x, list(aten.nonzero.default(x > 0).unbind(1))[::-1], 1.0),
        lambda x: _put(x, list(aten.nonzero.default(x[:, :, 0] > 0).unbind(1))[:1]),
        lambda x: _put(x, list(aten.nonzero.default(x[:2, :3, 0] > 0).unbind(1))),
        lambda x: _put(x, [aten.nonzero.default(x[:, 0, 0] > 0)[:, 0]], x[0]),
        lambda x: _put(
            x,
            [
                aten.nonzero.default(x[0] > -90)[:, 0] % 3,
                aten.nonzero.default(x[1] > -90)[:, 1] % 4,
            ],
        ),
    ],
    ids=["turned", "one_column", "smaller_mask", "rows_of_values", "computed"],
)
def test_other_indices_stay(function: Callable[[Tensor], Tensor]) -> None:
    square = X[:, :3, :3]
    check_keeps(masks_as_indices, trace(function, (square,)))


def test_all_of_it_becomes_one_engine() -> None:
    from fxtrt import compile, report

    class Attended(torch.nn.Module):
        """As Mask2Former lets a query that would see nothing see everything."""

        def forward(self, mask: Tensor) -> Tensor:
            blocked = mask.sigmoid() < 0.5
            blocked[torch.where(blocked.sum(-1) == blocked.shape[-1])] = False
            result: Tensor = blocked.float() * 2 + mask
            return result

    model = Attended().eval()
    mask = torch.randn(2, 4, 3)
    mask[0, 1] = -1
    fast = compile(model, (mask,), engine="reference")
    torch.testing.assert_close(fast(mask), model(mask))
    assert report(fast).rejections == ()
