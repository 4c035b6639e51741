"""A cluster becomes an INetworkDefinition."""
