"""Models joined: the detections of an ensemble's members pooled, clustered into cells and fused."""
