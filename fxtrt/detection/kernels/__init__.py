"""Triton kernels behind the operators of detectors; importing a module of them imports Triton."""
