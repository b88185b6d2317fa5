"""C headers that compute, on a microcontroller, the spikes that evsnn computes in Python, bit for bit.

`python -m firmware_export WEIGHTS.h5 -o DIR` is the command; `export_network` and `export_files` are the same
for programs. Reads networks through `evsnn`; nothing in `evsnn` imports this package.
"""

from .export import Settings, export_files, export_network
from .text.header import Export

__all__ = ["Export", "Settings", "export_files", "export_network"]
