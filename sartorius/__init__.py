"""Finds every single neuron in a label-free microscope picture."""

__version__ = "0.1.0"
