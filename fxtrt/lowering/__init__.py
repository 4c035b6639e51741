"""The pipeline: turns a captured graph into a stitched one."""
