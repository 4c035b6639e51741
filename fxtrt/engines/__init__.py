"""The engines: ways to run the one network that the converters build."""
