"""Results while a run makes them: what every sample adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .circuit.populations import Circuit, MaxPool
from .network.layers import IF
from .result import LayerResult

__all__ = ["Tally", "result_bytes"]


def result_bytes(
    circuit: Circuit, n_samples: int, record: frozenset[str] = frozenset(), n_record_steps: int = 1
) -> int:
    """Bytes of the results of a run: those of a `Tally`.

    Parameters
    ----------
    circuit : Circuit
    n_samples : int
    record : frozenset of {"spike_counts", "v_mem", "spikes"}
    n_record_steps : int
        How many steps outputs are recorded after, the last one among them.
    """
    populations = circuit.populations
    readouts = [circuit.population(j) for j in circuit.readouts]
    n_bytes = 8 + len(populations) * (3 * 8 + 8)
    n_bytes += sum(8 * p.n_neurons * (n_record_steps + p.fires) for p in readouts)
    each = {"spike_counts": 4, "v_mem": 8, "spikes": circuit.n_sends}
    n_bytes += sum(each[what] * p.n_neurons for what in record for p in populations)
    return n_samples * n_bytes


class Tally:
    """Results while a run makes them. Each sample writes its own rows, so threads do not meet.

    Parameters
    ----------
    circuit : Circuit
    scales : sequence of (channels,) float64, optional
        What the integer 1 stands for in the membranes of each readout; None: they are in units of the ANN.
    n_samples : int
    record : frozenset of {"spike_counts", "v_mem", "spikes"}
    record_steps : sequence of int
        Steps after which outputs are recorded, counted from the start of the run.
    first, n_steps : int
        The steps that are recorded: `n_steps` steps after the first `first` ones.
    emitted : sequence of (n_samples, channels, height, width) float64, optional
        The net counts of each readout of spikes before these steps.

    Attributes
    ----------
    outputs_at : dict of int to dict of int to (n_samples, *output_shape) float64
        By the index of the population that is read out, and by step: the means over the steps so far.
    """

    def __init__(
        self,
        circuit: Circuit,
        scales: Sequence[np.ndarray] | None,
        n_samples: int,
        record: frozenset[str],
        record_steps: Sequence[int],
        first: int = 0,
        n_steps: int | None = None,
        emitted: Sequence[np.ndarray] | None = None,
    ):
        self.record, self.populations, self.first = record, circuit.populations, first
        n, network = len(self.populations), circuit.network
        self.counts = np.zeros((n_samples, n, 3), np.int64)
        self.seconds = np.zeros((n_samples, n))
        self.latency_ms = np.zeros(n_samples)
        self.record_steps = tuple(record_steps)
        self.outputs_at = {
            j: {step: np.zeros((n_samples, *network.shapes[layer.name])) for step in record_steps}
            for j, layer in zip(circuit.readouts, network.outputs)
        }
        graded = circuit.coding == "graded"
        self.steps_per_send = circuit.n_steps if graded else 1
        steps = circuit.n_sends if graded or n_steps is None else n_steps
        self.spike_counts: list[np.ndarray] | None = None
        self.v_mem: list[np.ndarray | None] | None = None
        self.spikes: list[np.ndarray] | None = None
        if "spike_counts" in record:
            self.spike_counts = [np.zeros((n_samples, *p.shape), np.int32) for p in self.populations]
        if "v_mem" in record:
            v_mem_type = np.float32 if circuit.readout.bias.dtype == np.float32 else np.int64
            self.v_mem = [
                None if isinstance(p, MaxPool) else np.zeros((n_samples, *p.shape), v_mem_type)
                for p in self.populations
            ]
        if "spikes" in record:
            self.spikes = [
                np.zeros(
                    (n_samples, steps, *p.shape),
                    np.uint8 if graded else np.int8 if p.has_negative_spikes else bool,
                )
                for p in self.populations
            ]
        self.fires = circuit.readout.fires
        self.emitted: dict[int, np.ndarray] = {}
        self.amplitudes: dict[int, np.ndarray] = {}
        self.scales: dict[int, np.ndarray] = {}
        for i, j in enumerate(circuit.readouts):
            p = circuit.population(j)
            if p.fires:
                self.emitted[j] = np.zeros((n_samples, *p.shape)) if emitted is None else emitted[i]
                layer = network.by_name[p.name]
                amplitude = layer.v_threshold if isinstance(layer, IF) else p.neuron.threshold
                self.amplitudes[j] = np.broadcast_to(amplitude.astype(np.float64), p.shape[:1])[:, None, None]
            elif scales is not None:
                self.scales[j] = scales[i][:, None, None]

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
        if j in self.emitted:
            counts = self.emitted[j][i] + spikes.cumsum(axis=0)
            self.emitted[j][i] = counts[-1]
            for step, outputs in self.outputs_at[j].items():
                sent = -(-step // self.steps_per_send)  # how often neurons have sent by then
                if first < sent <= first + len(spikes):
                    # In this order, so that ties of exact sums stay ties.
                    values = counts[sent - first - 1] * self.amplitudes[j] / step
                    outputs[i] = values.reshape(outputs.shape[1:])

    def read(self, i: int, j: int, step: int, v_mem: np.ndarray) -> None:
        """Add sample i's membranes (channels, height, width) after `step` in readout j, which never fires."""
        out = self.outputs_at[j][step][i]
        if j in self.scales:
            out[...] = (v_mem * self.scales[j] / step).reshape(out.shape)
        else:
            np.divide(v_mem.reshape(out.shape), step, out=out, dtype=np.float64)

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
        wanted = range(len(self.populations)) if everything else list(self.emitted)
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
