"""LiteRT (TensorFlow Lite) flatbuffers: `model.tflite`."""
