"""TensorFlow Lite: a FlatBuffer of tensors, buffers and operators."""
