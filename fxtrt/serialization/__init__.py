"""Turns graphs and models into plain data, and back."""
