"""Turns a config of Detectron2 and a photograph into a model and its inputs, offline."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from ..errors import SettingsError
from .example_models import (
    Example,
    calibrate,
    load_photograph,
)

__all__ = ["load_config"]


def load_config(
    config: str,
    image: Path | None = None,
    size: tuple[int, int] | None = None,
    weights: Path | None = None,
) -> Example:
    """Return a Detectron2 model with the inputs that its `DefaultPredictor` would give it.

    Args:
        config: a path in the model zoo ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"), or a file.
        image: a file; None takes matplotlib's photograph of Grace Hopper.
        size: the height and width of the model's input; None follows the config.
        weights: a checkpoint in any format that Detectron2 reads; None makes calibrated random
            weights, the same each time.

    Raises:
        SettingsError: Detectron2 is not installed, there is no such config, or a file is damaged.
    """
    try:
        from detectron2.checkpoint import DetectionCheckpointer
        from detectron2.data import MetadataCatalog
        from detectron2.modeling import build_model
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"a Detectron2 config needs {error.name}, which is not installed "
            "(https://detectron2.readthedocs.io/tutorials/install.html)"
        ) from error
    cfg = _config(config)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    photograph = load_photograph(image)
    inputs = ([_input(photograph, size, cfg)],)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    if weights is None:
        calibrate(model, inputs)
    else:
        try:
            DetectionCheckpointer(model).load(str(weights))
        except Exception as error:  # A damaged file may raise any exception.
            raise SettingsError(
                f"{weights} is not a checkpoint that Detectron2 can read: {error}"
            ) from error
    categories = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes", ())
    return Example(model, inputs, photograph, categories)


def _config(config: str) -> Any:
    from detectron2 import model_zoo
    from detectron2.config import get_cfg

    if Path(config).is_file():
        cfg = get_cfg()
        try:
            cfg.merge_from_file(config)
        except Exception as error:  # Wrong YAML and unknown keys may raise any exception.
            raise SettingsError(f"{config} is not a config of Detectron2: {error}") from error
        return cfg
    try:
        return model_zoo.get_config(config)
    except RuntimeError as error:
        zoo = Path(model_zoo.__file__).parent / "configs"
        names = [path.relative_to(zoo).as_posix() for path in zoo.rglob("*.yaml")]
        close = difflib.get_close_matches(config, names, n=1, cutoff=0.0)
        hint = f": did you mean {close[0]!r}?" if close else ""
        raise SettingsError(
            f"Detectron2's model zoo has no config {config!r}, nor is it a file{hint}"
        ) from error


def _input(photograph: Tensor, size: tuple[int, int] | None, cfg: Any) -> dict[str, Any]:
    height, width = photograph.shape[1:]
    if size is None:
        scale = cfg.INPUT.MIN_SIZE_TEST / min(height, width)
        scale = min(scale, cfg.INPUT.MAX_SIZE_TEST / max(height, width))
        size = (round(height * scale), round(width * scale))
    pixels = resize(photograph, list(size)) * 255
    if cfg.INPUT.FORMAT == "BGR":
        pixels = pixels.flip(0)
    return {"image": pixels, "height": height, "width": width}
