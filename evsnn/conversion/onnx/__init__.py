"""From a model file to a graph of operators, and what each operator computes."""
