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
    """Where a run of one sample is: what `Simulator.start` returns.

    A state belongs to the circuit that it was started in: the network, its number of steps and its
    arithmetic. It can be carried on by any simulator of the same circuit and back end.

    Parameters
    ----------
    circuit : str
        A digest of the circuit.
    about : str
        The same for people: "T = 16, float32, numba".
    backend : EngineState or ReferenceState
        What the back end carries from step to step: membranes, net counts, counts of max pools.
    sample : array or None
        The encoded sample: a constant current, or firing probabilities; None if events come with each block.
    seed : (int, int)
        The seed of the generator: the run's seed and the sample's index.
    generator : numpy.random.Generator, optional
        It draws Poisson spikes.
    emitted : tuple of (1, channels, height, width) float64, optional
        The net counts of each readout of spikes so far.
    outputs : (*output_shape) float64, optional
        The mean of the first output over all steps so far; None before the first step.

    Examples
    --------
    >>> simulator = evsnn.Simulator(net, 16)
    >>> state = simulator.start(image)
    >>> result = simulator.advance(state, 4)
    >>> state.step, state.about
    (4, 'T = 16, steps, float32, ...')
    """

    circuit: str
    about: str
    backend: EngineState | ReferenceState
    sample: np.ndarray | None
    seed: tuple[int, int]
    generator: np.random.Generator | None = None
    emitted: tuple[np.ndarray, ...] | None = None
    outputs: np.ndarray | None = None

    @property
    def step(self) -> int:
        """The number of steps that are done."""
        return self.backend.step

    def require(self, circuit: str, about: str) -> None:
        """Refuse a state of another circuit.

        Parameters
        ----------
        circuit, about : str
            What the state has to belong to.

        Raises
        ------
        RunError
            If the state belongs to another circuit.
        """
        if self.circuit != circuit:
            raise RunError(
                "the state belongs to another network, number of steps or arithmetic",
                where="state",
                got=self.about,
                expected=about,
                hint="start a sample with this simulator",
            )
