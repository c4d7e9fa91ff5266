"""Operators of the domain `edgewright`: what each means in numpy, and its body of standard ONNX operators.

    packing     signs as bits, 64 channels a word, channels last
    binary      binary convolution and linear layers on packed signs
    functions   the same as ONNX functions: ONNX Runtime runs a file that has them as it is

A sign is +1 or -1, and the sign of 0 is +1. A set bit stands for -1, so that the bits beyond the last channel, 0 in inputs
and weights alike, cancel out.
"""

DOMAIN = "edgewright"
