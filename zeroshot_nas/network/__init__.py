"""The torch side of an architecture: the module, inherited weights, ONNX."""
