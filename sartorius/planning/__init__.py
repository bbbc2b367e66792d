"""Settings of an experiment chosen from the data and the machine."""
