"""Scores: the competition's mAP (rows, torchmetrics state, report, bootstrap) and COCO box AP."""
