"""ncnn's two files: `.param`, the graph as text, and `.bin`, the weights in the order of the layers."""
