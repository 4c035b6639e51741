"""Recipes for torchvision's detectors."""
