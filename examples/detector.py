"""Compile a small detector as one graph, and give it images of several sizes."""

import torch
import torchvision

import fxtrt


def main() -> None:
    """Compile torchvision's Faster R-CNN with a small backbone; the answers are its own dicts."""
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, min_size=96, max_size=160
    ).eval()
    example = [torch.rand(3, 96, 128)]
    fast = fxtrt.compile(detector, (example,))
    print(fxtrt.report(fast))
    for sides in ((96, 128), (128, 96), (90, 150)):
        with torch.no_grad():
            (found,) = fast([torch.rand(3, *sides)])
        print(f"{sides}: {len(found['boxes'])} boxes")


if __name__ == "__main__":
    main()
