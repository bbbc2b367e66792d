"""Pseudo-labelled images as training data."""
