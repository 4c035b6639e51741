"""Recipes for Detectron2's detectors."""
