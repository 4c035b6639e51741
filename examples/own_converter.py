"""Give an operator of one's own a converter, so that it runs inside an engine."""

from typing import Any

import torch

import fxtrt


@torch.library.custom_op("example::hard_relu", mutates_args=())
def hard_relu(x: torch.Tensor, limit: float = 6.0) -> torch.Tensor:
    """Clamp `x` to the range from 0 to `limit`."""
    return x.clamp(0.0, limit)


@hard_relu.register_fake
def _(x: torch.Tensor, limit: float = 6.0) -> torch.Tensor:
    return torch.empty_like(x)


@fxtrt.converts(torch.ops.example.hard_relu.default)
def convert_hard_relu(ctx: fxtrt.Context, x: Any, limit: float) -> Any:
    """example::hard_relu(Tensor x, float limit=6.0) -> Tensor"""
    layer = ctx.net.add_activation(x, ctx.trt.ActivationType.CLIP)
    layer.alpha, layer.beta = 0.0, limit
    return layer.get_output(0)


class Model(torch.nn.Module):
    """Uses the operator between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.second = torch.nn.Conv2d(8, 8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give (N, 8, H - 4, W - 4) for an image of shape (N, 3, H, W)."""
        hidden: torch.Tensor = hard_relu(self.first(image))
        result: torch.Tensor = self.second(hidden)
        return result


def main() -> None:
    """Show that the operator is inside the one engine of the model."""
    model, image = Model().eval(), torch.rand(1, 3, 32, 32)
    fast = fxtrt.compile(model, (image,))
    coverage = fxtrt.report(fast)
    print(coverage)
    assert len(coverage.clusters) == 1
    assert not coverage.rejections


if __name__ == "__main__":
    main()
