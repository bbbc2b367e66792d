"""Finds every single neuron in a label-free microscope image."""

import os

__version__ = "0.1.0"

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing albumentations asks the network for a newer one
