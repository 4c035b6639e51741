"""Recipes for torchvision's detectors, and the equivalents that they name."""
