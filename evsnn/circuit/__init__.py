"""What is computed: populations of neurons and their projections, in floats and in integers.

The reference computes it, slowly and obviously.
"""
