"""Thresholds per cell type that maximise the competition's score on detections already made."""

from sartorius.tuning.space import SearchSpace

__all__ = ["SearchSpace"]
