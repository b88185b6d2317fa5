"""C headers that compute, on a microcontroller, the spikes that evsnn computes in Python, bit for bit.

`python -m firmware_export WEIGHTS.h5 -o DIR` is the command; `export_network` and `export_files` are the same
for programs. Reads networks through `evsnn`; nothing in `evsnn` imports this package. A public name is
imported when it is first used, so that the command is ready for Ctrl-C before anything large is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .export import Settings, export_files, export_network
    from .text.header import Export

__all__ = ["Export", "Settings", "export_files", "export_network"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'firmware_export' has no attribute {name!r}")
    module = importlib.import_module(".text.header" if name == "Export" else ".export", __name__)
    return getattr(module, name)
