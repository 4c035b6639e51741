"""How two sets of numbers are compared."""
