"""Decisions about finished cells: the false-positive filter and its training; pseudo-labels."""
