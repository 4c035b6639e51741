"""Turns clusters into plans and loaded engines."""
