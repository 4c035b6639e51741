"""The `fxtrt` command."""
