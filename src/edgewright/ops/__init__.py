"""edgewright's own operators: schema, standard-operator body and numpy meaning."""
