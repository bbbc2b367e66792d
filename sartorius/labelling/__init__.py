"""Labels: those of other programs read in, predictions corrected, and the images to label next."""
