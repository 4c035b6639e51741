"""Capture a detector as one graph by the recipe of its architecture: its core, or the whole."""

from .dynamo_glue import prepare
from .host_steps import HostSteps, Prepared, TooManyCandidates
from .recipes import Recipe, recipe_of, register
from .substitution import with_equivalents

__all__ = [
    "HostSteps",
    "Prepared",
    "Recipe",
    "TooManyCandidates",
    "prepare",
    "recipe_of",
    "register",
    "with_equivalents",
]
