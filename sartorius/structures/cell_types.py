"""The cell types of the competition, and the size of its images."""

# The order is that of the public threshold tables; class index k in this project is CELL_TYPES[k] unless a
# model was trained with other names (they travel with its detections).
CELL_TYPES: tuple[str, ...] = ("shsy5y", "astro", "cort")

# Class index of a doubtful cell: neither cell nor background to any loss.
DOUBTFUL = -1

UNTYPED = "cell"  # the type of cells whose file tells none

# Cell type of a row that is no cell but a region nobody has labelled: it costs nothing in any loss.
UNLABELLED = "unlabelled"

HEIGHT = 520  # pixels, of every image of the competition
WIDTH = 704
