"""The nodes of a graph are grouped into clusters, and each cluster is extracted."""
