"""The ANN in evsnn's own layers: what is left of a graph once everything linear is folded.

It is a `Network` whose `IF` layers stand where the ANN has its ReLUs. The thresholds in it mean
nothing yet; balancing sets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..network import Network

__all__ = ["Ann"]


@dataclass(frozen=True, eq=False)
class Ann:
    """A ReLU network ready to be balanced.

    Parameters
    ----------
    network : Network
        Batch norms folded; `IF` where the ANN has a ReLU; readout "membrane".
    clips : mapping of str to array
        Upper limit y_th of the ReLU at each `IF`, (channels,) or (), where it has one (threshold ReLU).
    moments : mapping of str to (mean, deviation)
        Each (channels,): mean and standard deviation of the current at an `IF` over the training data,
        where a batch norm stood before the ReLU. For thresholds without data.
    notes : tuple of str
        What importing and folding did, for people.
    """

    network: Network
    clips: Mapping[str, np.ndarray] = field(default_factory=dict)
    moments: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
