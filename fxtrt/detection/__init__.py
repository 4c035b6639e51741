"""Detectors captured whole: one graph from images to detections, by architecture."""

from .glue import prepare
from .plans import ComponentPlan, plan_of, register
from .substitution import planned

__all__ = ["ComponentPlan", "plan_of", "planned", "prepare", "register"]
