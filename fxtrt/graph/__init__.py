"""What is known of fx graphs: nodes, sizes, specs, weights, aliases, order and provenance."""
