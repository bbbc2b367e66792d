"""Names of NumPy array types: by dtype where an array may hold anything, by meaning where its shape is fixed too.

Shapes stand in the docstrings of the functions, [N] or [H, W]; mypy checks the dtypes.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]
AnyInts = NDArray[np.integer]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
AnyFloats = NDArray[np.floating]
Bools = NDArray[np.bool_]

GreyImage = NDArray[np.uint8]  # [H, W]
ColourImage = NDArray[np.uint8]  # RGB [H, W, 3]
Mask = NDArray[np.bool_]  # [H, W]
Plane = NDArray[np.float32]  # a value a pixel, [H, W]
LabelMap = NDArray[np.uint16]  # 0 is background, k + 1 is cell k, [H, W]
Layers = NDArray[np.uint16]  # label maps of cells that overlap, [L, H, W]; see `instances.Instances`
Boxes = NDArray[np.float32]  # x0, y0, x1, y1 in pixels, [N, 4]
Scores = NDArray[np.float32]  # [N]
SoftMasks = NDArray[np.float16]  # probabilities within boxes, [N, S, S]; see `detections.Detections`
Points = NDArray[np.float64]  # x, y in pixels, [N, 2]
