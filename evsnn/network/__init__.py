"""What a network is: layers, the graph that they form, parameters that differ with T, and a count of it
all.
"""
