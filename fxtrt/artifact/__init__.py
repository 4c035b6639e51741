"""A compiled model is saved to one file, and loaded from it."""
