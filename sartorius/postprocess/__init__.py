"""From detections to cells: the steps of post-processing; decoders of dense maps; a classical baseline."""

from sartorius.postprocess.cleaning import FillHoles, LargestPiece, ReopenHoles
from sartorius.postprocess.finalise import Finalised, Postprocess
from sartorius.postprocess.step import SearchRange, Step
from sartorius.postprocess.steps import (
    BoxNMS,
    MaskNMS,
    MaxDetections,
    MinArea,
    Overlaps,
    PasteMasks,
    Score,
    ThresholdTypes,
)

__all__ = [
    "BoxNMS", "FillHoles", "Finalised", "LargestPiece", "MaskNMS", "MaxDetections", "MinArea", "Overlaps", "PasteMasks",
    "Postprocess", "ReopenHoles", "Score", "SearchRange", "Step", "ThresholdTypes",
]  # fmt: skip
