"""ONNX models: read, folded, shaped, grouped into layers, cut into parts."""
