"""Clusters become plans and loaded engines."""
