"""Binary networks: layers that multiply signs by signs, their gradients, networks made of them, and their ONNX form.

    method       what a layer's weights, activations and gradients are, and the published combinations of these
    signs        the sign and what stands for its gradient: straight-through, EDE, a polynomial
    weights      from weights to two values a filter: signs, scaled signs, Libra-PB, AdaBin's sets
    layers       BinaryConv2d and BinaryLinear, RPReLU
    schedule     how EDE's slope changes while a network is trained
    imitation    the loss of a student that has a teacher
    networks     ResNet-20, ResNet-18 and VGG-small
    deployed     a trained network as what is computed: comparisons, convolutions of signs, factors and shifts
    export       that, as ONNX of standard operators in the form which the pass `lower_binary` knows
    operators    binary layers as operators of an ONNX graph that is being trained

The sign of 0 is +1 and padding is a sign, in training as in the kernels.
"""
