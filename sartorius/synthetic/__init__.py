"""The generator of images with known cells."""
