"""A model becomes functional ATen graphs."""
