"""Keeps plans on disk, by a key of everything that they depend on."""
