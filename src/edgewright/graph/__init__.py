"""What passes share: shapes, dataflow, cost and rewriting of ONNX graphs."""
