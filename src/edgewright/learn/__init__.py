"""Training: an ONNX graph as a torch module, fake quantization, and the loop that distils from the original network.

torch is imported in this package only, by modules that others import inside functions.
"""
