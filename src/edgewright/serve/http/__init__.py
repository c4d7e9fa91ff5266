"""HTTP: the protocol's paths, photos, figures and documentation, over connections of our own."""
