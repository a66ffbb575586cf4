"""Quantised networks: one graph of operators with integer meaning, read from TFLite and ONNX."""
