"""Data modules: datasets, samplers and loaders of labelled and of unlabelled images."""
