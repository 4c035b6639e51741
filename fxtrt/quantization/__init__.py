"""Turns a normalized graph into one that computes in int8 where that is fast and safe."""
