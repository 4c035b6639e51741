"""Makes the vision models to measure, with random weights, and their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn
from torchvision.models import detection, get_model
from zoo_inputs import Inputs, image, image_pair, make, pyramid, regions

from fxtrt.diagnostics.example_models import calibrate

__all__ = ["EXAMPLES", "Example"]

CNN = image(160, 192)
FIXED = image(224, 224, None)
PADDED = image(128, 160, None)
"""Inputs for models that pad to windows, where torch.export takes minutes for symbolic H and W."""


@dataclass(frozen=True, slots=True)
class Example:
    """A model with its name and inputs.

    source: the library whose architecture it is.
    note:   how its measurement differs from the others, and why; it is printed after the name.
    """

    source: str
    name: str
    build: Callable[[], nn.Module]
    inputs: Inputs = CNN
    note: str = ""

    def model(self) -> nn.Module:
        """Return the model in eval mode; its weights are random, and the same each time."""
        torch.manual_seed(0)
        model = self.build().eval()
        enliven(model)
        calibrate(model, make(self.inputs.others[-1]))
        return model


def enliven(model: nn.Module) -> None:
    """Give random values to every parameter whose elements are all equal, in place.

    Zero biases, unit scales, and layer scales of 1e-6 would hide faults of converters.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            first = parameter.flatten()[0]
            if bool((parameter == first).all()):
                parameter.add_(torch.randn_like(parameter) * max(0.1, 0.1 * float(first.abs())))


def _torchvision(name: str, inputs: Inputs = CNN, note: str = "", **options: Any) -> Example:
    def build() -> nn.Module:
        return get_model(name, weights=None, **options)  # type: ignore[no-any-return]  # untyped

    return Example("torchvision", name, build, inputs, note)


def _segmentation(name: str) -> Example:
    return _torchvision(name, weights_backbone=None)


def _timm(name: str, inputs: Inputs = CNN, note: str = "", **options: Any) -> Example:
    def build() -> nn.Module:
        return timm.create_model(name, pretrained=False, **options)

    return Example("timm", name, build, inputs, note)


class _Updates(nn.Module):
    """Runs RAFT with two of its twelve updates, which are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.raft = get_model("raft_small", weights=None)

    def forward(self, image1: torch.Tensor, image2: torch.Tensor) -> list[torch.Tensor]:
        return self.raft(image1, image2, num_flow_updates=2)  # type: ignore[no-any-return]  # untyped


def _convmixer() -> nn.Module:
    return timm.models.ConvMixer(768, 4, kernel_size=7, patch_size=7, act_layer=nn.ReLU)


def _part(name: str, build: Callable[[], nn.Module], inputs: Inputs = CNN) -> Example:
    return Example("detector", name, build, inputs)


def _resnet_fpn() -> nn.Module:
    builder = detection.backbone_utils.resnet_fpn_backbone
    return builder(backbone_name="resnet50", weights=None)  # type: ignore[no-any-return]  # untyped


def _box_head() -> nn.Module:
    head = detection.faster_rcnn.TwoMLPHead(256 * 7 * 7, 1024)
    return nn.Sequential(head, detection.faster_rcnn.FastRCNNPredictor(1024, 91))


def _mask_head() -> nn.Module:
    head = detection.mask_rcnn.MaskRCNNHeads(256, (256,) * 4, 1)
    return nn.Sequential(head, detection.mask_rcnn.MaskRCNNPredictor(256, 256, 91))


def _keypoint_head() -> nn.Module:
    head = detection.keypoint_rcnn.KeypointRCNNHeads(256, (512,) * 8)
    return nn.Sequential(head, detection.keypoint_rcnn.KeypointRCNNPredictor(512, 17))


def _ssd_head() -> nn.Module:
    return detection.ssd.SSDHead([512, 1024, 512], [4, 6, 6], 91)  # type: ignore[no-any-return]  # untyped


FPN = (256,) * 5
SWIN = (
    "has fixed H and W: with multiples of 224 for them, `torch.export` had not ended after 200 s "
    "on two cores that did other work too"
)
RAFT = (
    "with two of its twelve updates; N is fixed, because `torch.export` gives a size to the parts "
    "into which `chunk` takes its batch apart"
)

EXAMPLES = (
    _torchvision("alexnet"),
    _torchvision("vgg11"),
    _torchvision("resnet18"),
    _torchvision("resnext50_32x4d"),
    _torchvision("wide_resnet50_2"),
    _torchvision("densenet121"),
    _torchvision("googlenet", image(256, 288), init_weights=False),
    _torchvision("inception_v3", image(256, 288), init_weights=False),
    _torchvision("squeezenet1_0"),
    _torchvision("shufflenet_v2_x0_5"),
    _torchvision("mobilenet_v2"),
    _torchvision("mobilenet_v3_small"),
    _torchvision("mnasnet0_5"),
    _torchvision("efficientnet_b0"),
    _torchvision("efficientnet_v2_s"),
    _torchvision("regnet_y_400mf"),
    _torchvision("convnext_tiny"),
    _torchvision("vit_b_16", image(64, 64, None), "takes one image size", image_size=64),
    _torchvision("swin_t", PADDED, SWIN),
    _torchvision(
        "swin_v2_t",
        PADDED,
        "has fixed H and W, as swin_t, whose windows it shares; others were not tried",
    ),
    _torchvision("maxvit_t", FIXED, "takes one image size: its grids are made with it"),
    _segmentation("deeplabv3_mobilenet_v3_large"),
    _segmentation("fcn_resnet50"),
    _segmentation("lraspp_mobilenet_v3_large"),
    Example("torchvision", "raft_small", _Updates, image_pair(128, 160, 8, (16, 32)), RAFT),
    _part("R50-FPN backbone", _resnet_fpn),
    _part("RPN head", lambda: detection.rpn.RPNHead(256, 3), pyramid(*FPN)),
    _part("RetinaNet head", lambda: detection.retinanet.RetinaNetHead(256, 9, 91), pyramid(*FPN)),
    _part("FCOS head", lambda: detection.fcos.FCOSHead(256, 1, 91), pyramid(*FPN)),
    _part("SSD head", _ssd_head, pyramid(512, 1024, 512)),
    _part("box head", _box_head, regions(256, 7)),
    _part("mask head", _mask_head, regions(256, 14)),
    _part("keypoint head", _keypoint_head, regions(256, 14)),
    _timm("efficientvit_b0"),
    _timm("ghostnet_050"),
    _timm("hardcorenas_a"),
    _timm("levit_128s", FIXED),
    _timm("mobileone_s0"),
    _timm("fastvit_t8"),
    _timm("xcit_nano_12_p16_224", FIXED),
    _timm("pvt_v2_b0"),
    _timm("poolformer_s12"),
    Example("timm", "convmixer_768_32", _convmixer, image(56, 56, 7), "with four of its 32 blocks"),
    _timm("mixer_s32_224", FIXED),
    _timm("coat_lite_tiny", FIXED),
    _timm("cait_xxs24_224", FIXED),
    _timm("deit_tiny_patch16_224", FIXED),
    _timm("beit_base_patch16_224", FIXED, "with three of its twelve blocks", depth=3),
    _timm("davit_tiny", PADDED),
    _timm("edgenext_xx_small"),
    _timm("repvgg_a0"),
    _timm("dla34"),
    _timm("hrnet_w18_small"),
    _timm("res2net50_26w_4s"),
    _timm("resnest14d"),
    _timm("ese_vovnet19b_dw"),
    _timm("tinynet_e"),
    _timm("eca_nfnet_l0"),
    _timm("cspresnet50"),
    _timm("rexnet_100"),
    _timm("focalnet_tiny_srf"),
    _timm("inception_next_tiny"),
    _timm("mvitv2_tiny", FIXED),
)
"""Small models of torchvision's and timm's families, and parts of torchvision's detectors."""
