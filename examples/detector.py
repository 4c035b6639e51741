"""Compile a small detector as one graph, and give it images of several sizes."""

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

import fxtrt


class Backbone(nn.Sequential):
    """Two convolutions, so that the example takes seconds; take a real one for real images."""

    out_channels = 16

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 7, 8, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1))


def main() -> None:
    """Compile torchvision's Faster R-CNN around that backbone; the answers are its own dicts."""
    detector = FasterRCNN(
        Backbone(),
        num_classes=5,
        min_size=96,
        max_size=160,
        rpn_anchor_generator=AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),)),
        rpn_post_nms_top_n_test=50,
        box_score_thresh=0.0,  # random weights are sure of nothing
        box_detections_per_img=10,
    ).eval()
    example = [torch.rand(3, 96, 160)]
    fast = fxtrt.compile(detector, (example,))
    print(fxtrt.report(fast))
    # The first size runs as one graph; the others run in the engines of the backbone and heads.
    for sides in ((96, 160), (128, 96), (90, 150)):
        with torch.no_grad():
            (found,) = fast([torch.rand(3, *sides)])
        print(f"{sides}: {len(found['boxes'])} boxes")


if __name__ == "__main__":
    main()
