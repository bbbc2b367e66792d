"""Settings of an experiment that follow from a folder of labelled images and from the machine."""
