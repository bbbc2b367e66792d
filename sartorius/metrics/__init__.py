"""Scores: the competition's mAP (rows, torchmetrics state, report, bootstrap), F1, PQ, AJI, COCO AP, pixels."""
