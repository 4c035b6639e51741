"""Holds the weights of a file under their names, in place of the model that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch

from ..errors import CallError

__all__ = ["LoadedModel"]


class LoadedModel(torch.nn.Module):
    """A model that was loaded from a file, and has no code of its own.

    Its `forward` is replaced by that of its graphs. A call that these do not take is refused, since
    there is nothing else that could answer it.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Register the weights, whose names are paths: parameters as such, all others as buffers.

        Raises:
            KeyError, AttributeError: two names exclude each other, or one is no name.
        """
        super().__init__()
        for path, tensor in weights.items():
            *folders, name = path.split(".")
            module: torch.nn.Module = self
            for folder in folders:
                if folder not in module._modules:
                    module.add_module(folder, torch.nn.Module())
                module = module.get_submodule(folder)
            if isinstance(tensor, torch.nn.Parameter):
                module.register_parameter(name, tensor)
            else:
                module.register_buffer(name, tensor)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise self.refusal("it has no graph of its own")

    def refuse(self, reason: str, cause: Exception | None = None) -> NoReturn:
        """Refuse a call.

        Raises:
            CallError: always; it has the reason.
        """
        raise self.refusal(reason) from cause

    @staticmethod
    def refusal(reason: str) -> CallError:
        """Return the error for a call that no graph takes."""
        return CallError(
            f"{reason}. The file has no model code to answer other calls than those that it was "
            f"compiled for: compile and save the model with an example or settings that cover them"
        )
