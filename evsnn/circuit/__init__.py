"""What is computed: populations of neurons and what charges them, in floats and in integers, and the
reference that does it.
"""
