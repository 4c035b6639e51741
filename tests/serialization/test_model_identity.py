"""A model's identity covers what its functions hold."""

from __future__ import annotations

from typing import Any

from torch import nn

from fxtrt.serialization.model_identity import difference, identity_of


def scaled(x: Any, *, factor: float = 2.0) -> Any:
    """Return `x` times a keyword's default."""
    return x * factor


class Model(nn.Module):
    """Calls a function that is one of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = scaled

    def forward(self, x: Any) -> Any:
        """Return the scaled `x`."""
        return self.scale(x)


def test_the_default_of_a_keyword_counts() -> None:
    before = identity_of(Model().eval())
    assert difference(before, identity_of(Model().eval())) is None
    defaults = scaled.__kwdefaults__
    assert defaults is not None
    defaults["factor"] = 3.0
    try:
        assert "scale" in (difference(before, identity_of(Model().eval())) or "")
    finally:
        defaults["factor"] = 2.0
