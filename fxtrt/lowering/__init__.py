"""A captured graph becomes a stitched one."""
