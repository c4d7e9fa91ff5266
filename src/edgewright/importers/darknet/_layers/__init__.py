"""One module for each family of layers; each builder turns a section into nodes and returns the layer's output."""
