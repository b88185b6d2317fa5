"""C headers that compute, on a microcontroller, the spikes that evsnn computes in Python, bit for bit.

Reads networks through `evsnn`; nothing in `evsnn` imports this package. The exporter itself is not
here yet.
"""
