"""From what a network says about parts of a picture to what is said about the picture."""
