"""A trained model as one zip file that needs no pickle: weights, metadata, card and an example."""
