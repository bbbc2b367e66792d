"""Which unlabelled images to label next, and how well each is predicted."""
