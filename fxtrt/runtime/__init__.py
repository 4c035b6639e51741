"""Runs the calls of a compiled model, with engines, slots, streams and CUDA graphs."""
