"""A replica whose model takes a fixed time, so that what it can do depends on no processor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fxtrt.serving.ray_app import Replica
from fxtrt.serving.serve_options import ServeOptions
from fxtrt.serving.served_file import ServedFile

__all__ = ["SECONDS", "SlowReplica"]

SECONDS = 0.3
"""What a batch takes. It is much more than HTTP and Ray need, also while two cores are busy."""


class Slow(nn.Module):
    """Takes three tenths of a second for a batch, besides what the model takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Sequence[Any]) -> Any:
        time.sleep(SECONDS)
        return self.model(images)


class SlowReplica(Replica):
    """Calls the model of the file slowly."""

    def opened(self, options: ServeOptions) -> ServedFile:
        served = super().opened(options)
        return replace(served, model=Slow(served.model))
