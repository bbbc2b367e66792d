"""Loggers of a run: csv, Weights & Biases, TensorBoard, and the protocol that callbacks write to."""
