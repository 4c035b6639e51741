"""Recipes for Detectron2's detectors, and the equivalents that they name."""
