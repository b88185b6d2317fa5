"""From an ANN to a spiking network: thresholds, corrections, and the choice among recipes."""
