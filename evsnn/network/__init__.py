"""What a network is: layers, the graph that they form, and parameters that differ with T."""
