"""The parts of an ONNX package's `run.py` that the package itself does not have: NumPy, SciPy and onnxruntime only."""
