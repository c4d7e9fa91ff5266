"""Zoo families: a graph built from its published definition, weights from an installed package."""
