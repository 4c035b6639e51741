"""Implements the `fxtrt` command."""
