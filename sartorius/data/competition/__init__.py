"""Data in the layout of the competition."""
