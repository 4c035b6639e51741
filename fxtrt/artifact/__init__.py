"""Saves a compiled model to one file, and loads it."""
