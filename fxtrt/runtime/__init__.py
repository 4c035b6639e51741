"""Engines, slots, streams and CUDA graphs: what a call of a compiled model runs."""
