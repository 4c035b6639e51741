"""Give contexts that run one after the other a block of device memory, which grows with need."""

from __future__ import annotations

import torch

from ..errors import EngineError

__all__ = ["Scratch"]


class Scratch:
    """The scratch memory of one slot.

    block: uint8, of one dimension. A CUDA graph keeps the block that it was recorded with, and the
           stream that is current when a block is made owns it.
    """

    def __init__(self, device: torch.device, size: int = 0) -> None:
        """Make a block of `size` bytes.

        Raises:
            EngineError: there is not enough memory.
        """
        self.block = torch.empty(0, dtype=torch.uint8, device=device)
        self.at_least(size)

    def at_least(self, size: int) -> torch.Tensor:
        """Return the block, of `size` bytes or more.

        Raises:
            EngineError: there is not enough memory.
        """
        if self.block.nbytes < size:
            device = self.block.device
            try:
                self.block = torch.empty(size, dtype=torch.uint8, device=device)
            except torch.cuda.OutOfMemoryError as error:
                raise EngineError(
                    f"there are no {size} bytes of scratch memory on {device}: use fewer slots, a "
                    f"smaller most_images or smaller inputs"
                ) from error
        return self.block
