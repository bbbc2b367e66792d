"""Predictions of several models within a time budget, and a submission that is complete at any time."""
