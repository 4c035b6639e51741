"""Operators of detectors."""
