"""Hold the Triton kernels of the detectors' operators."""
