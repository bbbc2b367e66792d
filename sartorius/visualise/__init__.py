"""Drawings: cells over images, and the targets that a model is trained on."""
