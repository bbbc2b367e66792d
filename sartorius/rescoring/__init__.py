"""The false-positive filter: predict each cell's IoU with the truth; drop cells below a threshold."""
