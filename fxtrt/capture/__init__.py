"""Turns a model into functional ATen graphs."""
