"""ONNX files as quantised graphs: QOperator, QDQ, and what the host runs."""
