"""Predicted cells corrected by a person: the edits, what is kept of them on the disk, and the way through Fiji."""
