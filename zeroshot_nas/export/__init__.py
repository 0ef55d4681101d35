"""Trained networks as files that ship: ONNX, int8, torch.export, one self-contained Python file."""
