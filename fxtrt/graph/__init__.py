"""Answer what several stages ask about fx graphs: nodes, sizes, weights, aliases and order."""
