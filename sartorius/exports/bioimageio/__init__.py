"""A trained network as a package of the BioImage Model Zoo."""
