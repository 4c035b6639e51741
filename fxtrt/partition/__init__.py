"""Groups the nodes of a graph into clusters, and extracts each cluster."""
