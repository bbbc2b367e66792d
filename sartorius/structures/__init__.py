"""The nouns: run lengths, instances, detections, windows, cell types."""
