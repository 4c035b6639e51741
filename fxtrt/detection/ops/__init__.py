"""Define the operators of detectors: each module defines the one that it is named after.

Functions that branch or loop over data cannot be traced. As one operator, with a fake that tells
the sizes of its results, each of them is one node of the graph, which runs in PyTorch.
"""
