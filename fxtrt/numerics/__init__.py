"""Compare two sets of numbers."""
