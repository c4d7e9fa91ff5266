"""ncnn: the text of a .param and the weights of its .bin."""
