"""Finds every single neuron in a label-free microscope image."""

__version__ = "0.1.0"
