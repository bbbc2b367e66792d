"""Transforms of an image and its cells: albumentations, crops, copy-paste."""
