"""From a graph of operators to an ANN in the layers of a network."""
