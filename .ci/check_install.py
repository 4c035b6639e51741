"""Checks an installed fxtrt from outside the checkout: packages, converters, backend."""

import sys
from pathlib import Path

import torch

backends = torch._dynamo.list_backends(None)
assert "fxtrt" in backends, f"torch.compile does not list fxtrt: {backends}"
assert "fxtrt" not in sys.modules

model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)).eval()
x = torch.randn(1, 3, 8, 8)
with torch.no_grad():
    compiled = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    torch.testing.assert_close(compiled(x), model(x))

import fxtrt  # noqa: E402  # the backend above must be found without it
import fxtrt.converters  # noqa: E402
import fxtrt.passes  # noqa: E402

for package in (fxtrt, fxtrt.converters, fxtrt.passes):
    path = Path(package.__path__[0])
    assert path.is_relative_to(sys.prefix), f"{package.__name__} comes from {path}"
    assert list(path.glob("*.py")), f"{path} is empty"
converters = fxtrt.registered()
assert converters, "no converter is registered"
print(f"fxtrt {Path(fxtrt.__file__).parent}: {len(converters)} converters, in {sys.prefix}")
