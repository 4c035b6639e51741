"""Capture a detector as one graph from images to detections, by the recipe of its architecture."""

from .dynamo_glue import prepare
from .recipes import Recipe, recipe_of, register
from .substitution import with_equivalents

__all__ = ["Recipe", "prepare", "recipe_of", "register", "with_equivalents"]
