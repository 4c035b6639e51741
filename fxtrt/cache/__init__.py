"""Plans are kept on disk, by a key of everything that they depend on."""
