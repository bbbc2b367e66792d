"""Trained models in files for others: bundles, ONNX, BioImage.IO."""
