"""Runs as pages and plots for people: curves, tables, a gallery. Numbers come from `metrics`, never from here."""
