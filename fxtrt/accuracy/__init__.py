"""Judge the answers of a model in the units of its task."""

from .metrics import agreement, box_ap

__all__ = ["agreement", "box_ap"]
