"""Save a compiled model to a file, and load it around the same model without capturing again."""

import tempfile
from pathlib import Path

import torch
import torchvision

import fxtrt


def main() -> None:
    """The file holds graphs and plans; the weights come from the model that you pass."""
    model = torchvision.models.resnet18(weights=None).eval()
    image = torch.rand(1, 3, 64, 64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.fxtrt"
        fast = fxtrt.compile(model, (image,))
        fxtrt.save(fast, path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        loaded = fxtrt.load(path, model)
    with torch.no_grad():
        assert torch.equal(loaded(image), fast(image))
    print("the loaded model gives the same bits")


if __name__ == "__main__":
    main()
