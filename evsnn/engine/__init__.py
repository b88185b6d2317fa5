"""How fast it is computed: plans, packed weights, workspaces and compiled kernels. Nothing but simulation and
profiling imports it.
"""
