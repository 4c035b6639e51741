"""Detectors captured whole: one graph from images to detections, by architecture."""

from .dynamo_glue import prepare
from .recipes import (
    ComponentPlan,
    plan_of,
    register,
)
from .substitution import planned

__all__ = ["ComponentPlan", "plan_of", "planned", "prepare", "register"]
