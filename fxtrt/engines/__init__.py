"""Build and run the network that the converters make, in one of three engines."""
