"""Write files that are complete or absent, and name temporary files after their process."""
