"""Graphs and models as data."""
