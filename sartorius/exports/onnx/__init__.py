"""A trained network in ONNX with a program that finds its cells without torch."""
