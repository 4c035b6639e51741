"""Find what is wrong: bisect an engine to its first wrong node; models to try things on."""
