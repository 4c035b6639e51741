"""Files that are complete or absent, and temporary ones whose process is known."""
