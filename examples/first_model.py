"""Compile a ResNet, print what runs where, and compare the answers with eager."""

import torch
import torchvision

import fxtrt


def main() -> None:
    """Compile with the best engine that this machine has."""
    model = torchvision.models.resnet18(weights=None).eval()
    image = torch.rand(1, 3, 64, 64)
    fast = fxtrt.compile(model, (image,))
    print(fxtrt.report(fast))
    with torch.no_grad():
        difference = (fast(image) - model(image)).abs().max().item()
    print(f"largest difference from eager: {difference:.1e}")


if __name__ == "__main__":
    main()
