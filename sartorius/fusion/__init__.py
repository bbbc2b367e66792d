"""From what a network says about parts of an image to what is said about the image."""
