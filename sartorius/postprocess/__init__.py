"""From detections to cells: thresholds per cell type, NMS, pasting, overlap removal; and a classical baseline."""

from sartorius.postprocess.finalise import Finalised, Postprocess
from sartorius.postprocess.thresholds import Thresholds

__all__ = ["Finalised", "Postprocess", "Thresholds"]
