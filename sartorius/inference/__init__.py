"""How a network is applied to an image: windows, their merging and stitching, enlargement, test-time augmentation."""
