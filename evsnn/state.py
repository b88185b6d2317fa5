"""Where a run of one sample is: what `Simulator.start` gives and `Simulator.advance` moves on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import RunError

if TYPE_CHECKING:
    from .circuit.reference import State as ReferenceState
    from .engine.state import State as EngineState

__all__ = ["State"]


@dataclass(eq=False, kw_only=True)
class State:
    """Where a run of one sample is.

    It belongs to the circuit that it was started in: the network, its number of steps and its arithmetic. It
    outlives the simulator that made it, and goes on in any other of the same circuit and back end.

    Parameters
    ----------
    circuit : str
        A digest of the circuit.
    about : str
        The same for people: "T = 16, float32, numba".
    backend : EngineState or ReferenceState
        What the back end carries from step to step.
    sample : array
        The encoded sample: a constant current; firing probabilities; None if events come with each block.
    generator : numpy.random.Generator, optional
        Of Poisson spikes.
    seed : tuple of int
        Of the generator.
    emitted : (1, channels, height, width) float64, optional
        Net spikes of a readout of spikes.
    outputs : (*output_shape) float64, optional
        The outputs after the last step; None before the first.
    """

    circuit: str
    about: str
    backend: EngineState | ReferenceState
    sample: np.ndarray | None
    seed: tuple[int, int]
    generator: np.random.Generator | None = None
    emitted: np.ndarray | None = None
    outputs: np.ndarray | None = None

    @property
    def step(self) -> int:
        """Steps done."""
        return self.backend.step

    def require(self, circuit: str, about: str) -> None:
        """Refuse a state of another circuit.

        Raises
        ------
        RunError
        """
        if self.circuit != circuit:
            raise RunError(
                "the state belongs to another network, number of steps or arithmetic",
                where="state",
                got=self.about,
                expected=about,
                hint="start a sample with this simulator",
            )
