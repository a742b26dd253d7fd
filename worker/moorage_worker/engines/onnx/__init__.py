"""The ONNX Runtime engine, on CPU: no torch, starts in about a second, small enough for any machine."""
