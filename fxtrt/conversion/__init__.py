"""Convert a cluster to an INetworkDefinition."""
