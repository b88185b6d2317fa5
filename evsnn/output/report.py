"""The report of a run: a table of its layers, a summary, a sweep over T, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..network.network import Network
from ..result import LayerResult, Result
from ..text import as_bytes, as_count, as_shape
from .table import Column, Table, apportion

__all__ = ["SCHEMA_VERSION", "Report", "Run"]

SCHEMA_VERSION = 1
_FEW = 10  # predictions that a summary lists


@dataclass(frozen=True, eq=False)
class Run:
    """One run at one T.

    Parameters
    ----------
    result : Result
    memory_bytes : int
        The memory of the process as it was predicted before allocation: what it held, and what the run adds.
    start_up_ms : dict of str to float
        Milliseconds before the first outputs: "import", "load", "plan", "compile" and "first", the run of the
        first sample.
    """

    result: Result
    memory_bytes: int
    start_up_ms: dict[str, float]

    @property
    def latency_ms(self) -> dict[str, float]:
        """Percentiles of the time from a sample's arrival to its outputs, in milliseconds.

        They are those of `numpy.percentile`, whose first call imports `numpy.ma`: 12 ms of a start of 200 ms.
        """
        times = np.sort(self.result.latency_ms)
        ranks = np.array((0.5, 0.9, 0.99)) * (len(times) - 1)
        values = np.interp(ranks, np.arange(len(times)), times)
        return {name: round(float(value), 6) for name, value in zip(("p50", "p90", "p99"), values)}


@dataclass(frozen=True, eq=False)
class Report:
    """What `python -m evsnn.run` says about its runs.

    Parameters
    ----------
    model : str
        The weights file, as it was named.
    network : Network
    inputs : str
        Where the inputs came from: "samples", "noise" or a file's name.
    seed : int
        The seed of the noise and of Poisson inputs.
    runs : sequence of Run
        One per T, in the given order. The one with the largest T is described in full.
    """

    model: str
    network: Network
    inputs: str
    seed: int
    runs: Sequence[Run]

    @property
    def main(self) -> Run:
        """The run with the largest T."""
        return max(self.runs, key=lambda run: run.result.n_steps)

    def agreement(self, run: Run) -> float | None:
        """Share of predictions that equal those at the largest T; None if the task is not to classify."""
        return run.result.agreement(self.main.result)

    def nearest_steps(self, run: Run) -> int | None:
        """The T whose step or graded parameters the run used; None if the network has none."""
        return self.network.nearest_steps(run.result.n_steps, run.result.coding)

    def tables(self) -> list[Table]:
        """Layers (or the sweep, with several T) and the summary."""
        return [
            layer_table(self.main.result) if len(self.runs) == 1 else self.sweep_table(),
            Table.of_facts(self.summary()),
        ]

    def sweep_table(self) -> Table:
        """One row per T; a last column names the T of the step parameters, if a T has none of its own."""
        counts = f".{_digits(self.main.result)}f"
        classifies = self.network.task == "classify"
        columns: tuple[Column, ...] = (
            Column("T", "d"),
            Column("accuracy", ".4f"),
            Column("agreement", ".4f") if classifies else Column("rms difference", ".4g"),
            Column("rate", ".4f"),
            Column("spikes/sample", counts),
            Column("SOPs/sample", counts),
            Column("p50 ms/sample", ".3f"),
        )
        rows: list[tuple[object, ...]] = []
        for run in self.runs:
            result = run.result
            rows.append(
                (
                    result.n_steps,
                    result.accuracy,
                    self.agreement(run) if classifies else result.deviation(self.main.result),
                    result.mean_rate,
                    result.spikes_per_sample,
                    result.sops_per_sample,
                    run.latency_ms["p50"],
                )
            )
        used = [self.nearest_steps(run) for run in self.runs]
        if any(T not in (None, run.result.n_steps) for T, run in zip(used, self.runs)):
            columns, rows = (
                (*columns, Column("parameters of T", "d")),
                [(*row, T) for row, T in zip(rows, used)],
            )
        return Table(columns, tuple(rows))

    def summary(self) -> list[tuple[str, str]]:
        """What was run, and its results at the largest T."""
        run, result = self.main, self.main.result
        chosen = self.nearest_steps(run)
        steps = f"T = {result.n_steps}, shift {self.network.shift}"
        foreign = result.coding == "graded" and not self.network.graded_parameters
        if foreign and self.network.coding == "steps":
            steps += ", thresholds made for steps" + (f" of T = {chosen}" if chosen else "")
        elif chosen not in (None, result.n_steps):
            steps += f", {'graded' if result.coding == 'graded' else 'step'} parameters of T = {chosen}"
        facts = [
            ("model", self.model),
            ("input", f"{as_count(result.n_samples, 'sample')}, {self._source()}"),
            ("steps", steps),
        ]
        if result.accuracy is not None:
            right = round(result.accuracy * result.n_samples)
            facts.append(("accuracy", f"{100 * result.accuracy:.2f} % ({right:,} of {result.n_samples:,})"))
        if result.predictions is not None:
            facts.append(("predictions", self._predictions(result.predictions)))
        several = len(result.named_outputs) > 1
        if result.predictions is None or several:
            for i, (name, outputs) in enumerate(result.named_outputs.items()):
                facts.append(("" if i else "outputs", (f"{name}: " if several else "") + _about(outputs)))
        latency, macs = run.latency_ms, sum(layer.macs for layer in result.layers) / result.n_samples
        facts += [
            ("latency", ", ".join(f"{name} {latency[name]:.3f}" for name in latency) + " ms per sample"),
            (
                "SOPs",
                f"{result.sops_per_sample:,.{_digits(result)}f} per sample"
                + (f", and {macs:,.0f} multiply-adds of the analog input" if macs else ""),
            ),
            (
                "spikes",
                (
                    f"{result.spikes_per_sample:,.{_digits(result)}f} per sample, mean rate"
                    f" {result.mean_rate:.4f} per neuron and step"
                    if result.coding == "steps"
                    else f"{result.spikes_per_sample:,.{_digits(result)}f} graded per sample, from"
                    f" {result.mean_rate:.2%} of the neurons"
                ),
            ),
            *([("coding", _levels(result.n_steps))] if result.coding == "graded" else []),
            ("arithmetic", f"{result.arithmetic}, {as_count(result.threads, 'thread')}, {result.backend}"),
            ("memory", f"{as_bytes(run.memory_bytes)} predicted before allocation"),
            ("start-up", ", ".join(f"{name} {value:.0f}" for name, value in run.start_up_ms.items()) + " ms"),
        ]
        return facts

    def json(self) -> str:
        """One JSON object: the entry of the main run and, with several T, a `sweep` with one entry per T.

        `predictions` are class indices, `accuracy` is null without labels, `sops_per_sample` and
        `spikes_per_sample` are the sums over `layers` divided by `n_samples`.
        """
        report = self._entry(self.main)
        if len(self.runs) > 1:
            report["sweep"] = [
                self._entry(run)
                | {"agreement": self.agreement(run), "deviation": run.result.deviation(self.main.result)}
                for run in self.runs
            ]
        return json.dumps(report, allow_nan=False)

    def _entry(self, run: Run) -> dict:
        result = run.result
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "input": self.inputs,
            "seed": self.seed,
            "n_steps": result.n_steps,
            "nearest_steps": self.nearest_steps(run),
            "n_samples": result.n_samples,
            "task": result.task,
            "output_shape": list(result.outputs.shape[1:]),
            "outputs": {
                name: {
                    "shape": list(outputs.shape[1:]),
                    "min": float(outputs.min()),
                    "max": float(outputs.max()),
                    "mean": float(outputs.mean()),
                }
                for name, outputs in result.named_outputs.items()
            },
            "accuracy": result.accuracy,
            "predictions": None if result.predictions is None else result.predictions.tolist(),
            "latency_ms": run.latency_ms,
            "start_up_ms": {name: round(value, 3) for name, value in run.start_up_ms.items()},
            "memory_bytes": run.memory_bytes,
            "sops_per_sample": result.sops_per_sample,
            "spikes_per_sample": result.spikes_per_sample,
            "mean_rate": result.mean_rate,
            "coding": result.coding,
            "arithmetic": result.arithmetic,
            "threads": result.threads,
            "backend": result.backend,
            "layers": [_layer_entry(result, layer) for layer in result.layers],
        }

    def _source(self) -> str:
        return {"samples": "stored in the model's file", "noise": f"noise, seed {self.seed}"}.get(
            self.inputs, self.inputs
        )

    def _predictions(self, predictions: np.ndarray) -> str:
        result, classes = self.main.result, self.network.classes

        def name(index: int) -> str:
            return classes[index] if 0 <= index < len(classes) else str(index)

        labels = predictions if result.labels is None else result.labels
        pairs = list(zip(predictions.tolist(), labels.tolist()))[:_FEW]
        words = [
            name(got) if got == label else f"{name(got)} (labelled {name(label)})" for got, label in pairs
        ]
        return ", ".join(words) + (", ..." if result.n_samples > _FEW else "")


def layer_table(result: Result) -> Table:
    """One row per population of neurons; the last row is the sum of the rows above it, to the digit.

    The rate of the last row is the mean over all neurons that fire; its time is the time spent in layers,
    summed over threads.
    """
    n = result.n_samples
    digits = _digits(result)
    columns = (
        Column("layer"),
        Column("projection"),
        Column("shape"),
        Column("rate", ".4f"),
        Column("spikes/sample", f".{digits}f"),
        Column("SOPs/sample", f".{digits}f"),
        Column("ms/sample", ".3f"),
    )
    spikes, n_spikes = apportion([layer.n_spikes / n for layer in result.layers], digits)
    sops, n_sops = apportion([layer.sops / n for layer in result.layers], digits)
    times, time_ms = apportion([layer.time_ms / n for layer in result.layers], 3)
    rows = [
        (
            layer.name,
            layer.projection,
            as_shape(layer.shape),
            result.rate(layer) if layer.fires else None,
            *numbers,
        )
        for layer, *numbers in zip(result.layers, spikes, sops, times)
    ]
    n_neurons = sum(layer.n_neurons for layer in result.layers if layer.fires)
    return Table(
        columns,
        tuple(rows),
        ("total", "", as_count(n_neurons, "neuron"), result.mean_rate, n_spikes, n_sops, time_ms),
    )


def _about(outputs: np.ndarray) -> str:
    """The number and range of outputs."""
    what = (
        "one value per sample" if outputs[0].size == 1 else f"{as_shape(outputs.shape[1:])} values per sample"
    )
    return f"{what}, from {outputs.min():g} to {outputs.max():g}, mean {outputs.mean():g}"


def _digits(result: Result) -> int:
    """The number of decimals for counts per sample."""
    return 1 if result.sops_per_sample < 100_000 else 0


def _layer_entry(result: Result, layer: LayerResult) -> dict:
    """A layer in JSON; counts and milliseconds are over all samples."""
    return {
        "name": layer.name,
        "projection": layer.projection,
        "shape": list(layer.shape),
        "n_spikes": int(layer.n_spikes),
        "n_events": int(layer.n_events),
        "sops": int(layer.sops),
        "macs": int(layer.macs),
        "rate": result.rate(layer) if layer.fires else None,
        "ms": round(float(layer.time_ms), 6),
    }


def _levels(n_steps: int) -> str:
    """What graded spikes of so many levels equal."""
    bits = n_steps.bit_length()
    return f"graded, counts of 0 to {n_steps}: an ANN with activations of {as_count(bits, 'bit')}"
