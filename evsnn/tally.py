"""Results while a run makes them: what every sample adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .circuit.populations import Circuit, MaxPool
from .network.layers import IF
from .result import LayerResult

__all__ = ["Tally"]


class Tally:
    """Results while a run makes them. Each sample writes its own rows, so threads do not meet.

    Parameters
    ----------
    circuit : Circuit
    output_shape : tuple of int
        Of the network's output.
    scale : (channels,) float64, optional
        What the integer 1 stands for in the readout's membranes; None: they are in units of the ANN.
    n_samples : int
    record : frozenset of {"spike_counts", "v_mem", "spikes"}
    record_steps : sequence of int
        Steps after which outputs are recorded, counted from the start of the run.
    first, n_steps : int
        The steps that are recorded: `n_steps` steps after the first `first` ones.
    emitted : (n_samples, channels, height, width) float64, optional
        The net counts of a readout of spikes before these steps.
    """

    def __init__(
        self,
        circuit: Circuit,
        output_shape: tuple[int, ...],
        scale: np.ndarray | None,
        n_samples: int,
        record: frozenset[str],
        record_steps: Sequence[int],
        first: int = 0,
        n_steps: int | None = None,
        emitted: np.ndarray | None = None,
    ):
        self.record, self.populations, self.first = record, circuit.populations, first
        n, last = len(self.populations), circuit.readout
        self.counts = np.zeros((n_samples, n, 3), np.int64)
        self.seconds = np.zeros((n_samples, n))
        self.latency_ms = np.zeros(n_samples)
        self.outputs_at = {step: np.zeros((n_samples, *output_shape)) for step in record_steps}
        steps = circuit.n_steps if n_steps is None else n_steps
        self.spike_counts: list[np.ndarray] | None = None
        self.v_mem: list[np.ndarray | None] | None = None
        self.spikes: list[np.ndarray] | None = None
        if "spike_counts" in record:
            self.spike_counts = [np.zeros((n_samples, *p.shape), np.int32) for p in self.populations]
        if "v_mem" in record:
            v_mem_type = np.float32 if last.bias.dtype == np.float32 else np.int64
            self.v_mem = [
                None if isinstance(p, MaxPool) else np.zeros((n_samples, *p.shape), v_mem_type)
                for p in self.populations
            ]
        if "spikes" in record:
            self.spikes = [
                np.zeros((n_samples, steps, *p.shape), np.int8 if p.has_negative_spikes else bool)
                for p in self.populations
            ]
        self.fires = last.fires
        if self.fires:
            self.emitted = np.zeros((n_samples, *last.shape)) if emitted is None else emitted
            layer = circuit.network.by_name[last.name]
            amplitude = layer.v_threshold if isinstance(layer, IF) else last.neuron.threshold
            self.amplitude = np.broadcast_to(amplitude.astype(np.float64), last.shape[:1])[:, None, None]
        self.scale = None if scale is None else scale[:, None, None]

    def add(
        self,
        j: int,
        i: int,
        *,
        n_spikes: int,
        n_events: int,
        sops: int,
        seconds: float,
        v_mem: np.ndarray | None,
    ) -> None:
        """Add the counts and the time of population j for sample i."""
        self.counts[i, j] = n_spikes, n_events, sops
        self.seconds[i, j] = seconds
        if self.v_mem is not None and (kept := self.v_mem[j]) is not None:
            kept[i] = v_mem

    def add_spikes(self, j: int, i: int, first: int, spikes: np.ndarray) -> None:
        """Add sample i's spikes (n_steps, channels, height, width) of population j, from step `first` on."""
        if self.spikes is not None:
            self.spikes[j][i, first - self.first : first - self.first + len(spikes)] = spikes
        if self.spike_counts is not None:
            self.spike_counts[j][i] += spikes.sum(axis=0, dtype=np.int32)
        if j == len(self.populations) - 1 and self.fires:
            counts = self.emitted[i] + spikes.cumsum(axis=0)
            self.emitted[i] = counts[-1]
            for step in self.outputs_at:
                if first < step <= first + len(spikes):
                    # In this order, so that ties of exact sums stay ties.
                    values = counts[step - first - 1] * self.amplitude / step
                    self.outputs_at[step][i] = values.reshape(self.outputs_at[step].shape[1:])

    def read(self, i: int, step: int, v_mem: np.ndarray) -> None:
        """Add sample i's membranes (channels, height, width) of a readout that never fires, after `step`."""
        out = self.outputs_at[step][i]
        if self.scale is None:
            np.divide(v_mem.reshape(out.shape), step, out=out, dtype=np.float64)
        else:
            out[...] = (v_mem * self.scale / step).reshape(out.shape)

    def watcher(
        self, i: int, spikes_of: Callable[[int, int], np.ndarray]
    ) -> Callable[[int, int], None] | None:
        """The function to call after each block of sample i; None if spikes are not needed.

        Parameters
        ----------
        i : int
        spikes_of : callable (population, n_steps)
            The spikes (n_steps, channels, height, width) of the block.
        """
        everything = self.spikes is not None or self.spike_counts is not None
        wanted = range(len(self.populations)) if everything else [len(self.populations) - 1] * self.fires
        if not wanted:
            return None

        def watch(first: int, n_steps: int) -> None:
            for j in wanted:
                self.add_spikes(j, i, first, spikes_of(j, n_steps))

        return watch

    def layers(self) -> tuple[LayerResult, ...]:
        """The sums over all samples, population by population."""
        n_samples = len(self.counts)
        totals, seconds = self.counts.sum(axis=0).tolist(), self.seconds.sum(axis=0).tolist()
        return tuple(
            LayerResult(
                name=p.name,
                projection=p.label,
                shape=p.output_shape,
                n_spikes=n_spikes,
                n_events=n_events,
                sops=sops,
                macs=p.macs * n_samples,
                time_ms=seconds[j] * 1e3,
                fires=p.fires,
                spike_counts=None if self.spike_counts is None else self._shaped(self.spike_counts, j, 1),
                v_mem=None if self.v_mem is None else self._shaped(self.v_mem, j, 1),
                spikes=None if self.spikes is None else self._shaped(self.spikes, j, 2),
            )
            for j, (p, (n_spikes, n_events, sops)) in enumerate(zip(self.populations, totals))
        )

    def _shaped(self, arrays: Sequence[np.ndarray | None], j: int, lead: int) -> np.ndarray | None:
        array = arrays[j]
        if array is None:
            return None
        return array.reshape(*array.shape[:lead], *self.populations[j].output_shape)
