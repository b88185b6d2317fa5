"""How it is computed fast: plans, packed weights, workspaces and compiled kernels."""
