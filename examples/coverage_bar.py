"""Hold a model to a bar in your own CI: how much of it must run in engines, and in how few."""

import torch
import torchvision

import fxtrt


def main() -> None:
    """Capture and partition the model; nothing is built, and no GPU is needed."""
    model = torchvision.models.mobilenet_v3_small(weights=None).eval()
    coverage = fxtrt.report(model, (torch.rand(1, 3, 64, 64),))
    print(coverage)
    assert coverage.flops_share >= 0.95, "less than 95 % of the FLOPs run in engines"
    assert len(coverage.clusters) <= 3, "the model is cut into more than three engines"


if __name__ == "__main__":
    main()
