"""The options of a compilation, as one frozen value."""

from .options import Options
from .settings import Settings

__all__ = ["Options", "Settings"]
