"""The report of a conversion: what it loses, where and why, what it costs, and which T is worth it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ModelError
from ...output.memory import require
from ...output.table import Column, Table, apportion, draw
from ...simulation import Simulator
from ...text import as_count
from ..balance.targets import OutputError, Targets
from ..lowering.ann import forward_all
from .comparison import LayerExplanation, compare
from .diagnosis import diagnose
from .sweep import (
    TOLERABLE,
    SweepPoint,
    about_more_error,
    about_more_steps,
    ratio,
    standard_error,
    worth_by_error,
    worth_it,
)

if TYPE_CHECKING:
    from ..conversion import Conversion

__all__ = ["SCHEMA_VERSION", "SWEEP", "Explanation", "explain"]

SCHEMA_VERSION = 1
SWEEP = (4, 8, 16, 32, 64)
"""Numbers of steps that a network is run with beside its own."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` found.

    Parameters
    ----------
    n_samples, n_steps : int
        The number of held-out samples, and the T for which layers are compared.
    layers : tuple of LayerExplanation
        Each `IF` and max pool in order, the readout last. Their neurons, SOPs and MACs sum to those of the
        network.
    task : {"classify", "regress", "none"}
        How the first output is read.
    agreement : float, optional
        Share of held-out samples for which the SNN predicts what the given model does; None if the task is
        not to classify.
    errors : mapping of str to OutputError
        How far each output is from the given model's.
    ann_accuracy, accuracy : float, optional
        Of the given model and of the SNN; None without labels.
    loss, loss_error : float, optional
        The given model's accuracy less the SNN's (without labels: the share of predictions that differ), and
        its standard error; None if the task is not to classify.
    changed : str
        What is lost before spikes come in, if the ANN is another than the given model; else empty.
    sweep : tuple of SweepPoint
        By rising T; the network's own T is among them.
    worth_n_steps : int, optional
        The smallest T of the sweep whose accuracy (or agreement) is within one standard error of the best;
        None if even the best loses more than ten points.
    advice : tuple of str
        Sentences for people: the loss, where it comes from, and which T is worth it.
    """

    n_samples: int
    n_steps: int
    layers: tuple[LayerExplanation, ...]
    task: str
    agreement: float | None
    errors: Mapping[str, OutputError]
    ann_accuracy: float | None
    accuracy: float | None
    loss: float | None
    loss_error: float | None
    changed: str
    sweep: tuple[SweepPoint, ...]
    worth_n_steps: int | None
    advice: tuple[str, ...]

    @property
    def readout_error(self) -> float:
        """Root mean square of the last layer's error over that of the ANN's values there."""
        return self.layers[-1].error

    @property
    def sops_per_sample(self) -> float:
        return sum(layer.sops for layer in self.layers) / self.n_samples

    @property
    def macs(self) -> int:
        """Multiply-adds of the ANN per sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def analog_macs(self) -> int:
        """Multiply-adds of the SNN per sample, for the current of the analog input."""
        return sum(layer.analog_macs for layer in self.layers)

    @property
    def n_neurons(self) -> int:
        """The number of neurons and outputs of max pools, with those of the readout."""
        return sum(layer.n_neurons for layer in self.layers)

    @property
    def mean_rate(self) -> float:
        """Spikes per neuron and step, over the layers that fire."""
        return _mean_rate(self.layers)

    def rows(self) -> list[dict]:
        """A dictionary of plain numbers for each layer."""
        return [_row(layer) for layer in self.layers]

    def as_json(self) -> dict:
        """Everything in types that `json` can write; None for what does not exist."""
        return {
            "schema_version": SCHEMA_VERSION,
            "n_samples": self.n_samples,
            "n_steps": self.n_steps,
            "task": self.task,
            "errors": {name: asdict(error) for name, error in self.errors.items()},
            "ann_accuracy": self.ann_accuracy,
            "accuracy": self.accuracy,
            "agreement": self.agreement,
            "loss": self.loss,
            "loss_error": self.loss_error,
            "readout_error": self.readout_error,
            "n_neurons": self.n_neurons,
            "mean_rate": self.mean_rate,
            "sops_per_sample": self.sops_per_sample,
            "macs": self.macs,
            "analog_macs": self.analog_macs,
            "sops_per_mac": ratio(self.sops_per_sample, self.macs),
            "worth_n_steps": self.worth_n_steps,
            "advice": list(self.advice),
            "layers": self.rows(),
            "sweep": [asdict(point) for point in self.sweep],
        }

    def tables(self) -> list[Table]:
        """The tables: errors of the layers, their causes and costs, the sweep, and a summary."""
        said = [(layer.name, layer.diagnosis) for layer in self.layers if layer.diagnosis]
        return [
            self._truth(),
            self._causes(),
            *([Table.of_facts(said)] if said else []),
            self._sweep(),
            Table.of_facts(self.summary()),
        ]

    def text(self) -> str:
        """The tables, drawn."""
        return draw(self.tables())

    def summary(self) -> list[tuple[str, str]]:
        """What was compared, and the results."""
        share = ratio(self.sops_per_sample, self.macs)
        against = f" for {self.macs:,} multiply-adds of the ANN" + (
            f": {share:.2f} of them" if share is not None else ""
        )
        facts = [("compared", f"{as_count(self.n_samples, 'held-out sample')}, T = {self.n_steps}")]
        if self.accuracy is not None and self.ann_accuracy is not None:
            facts.append(
                ("accuracy", f"ANN {100 * self.ann_accuracy:.2f} %, SNN {100 * self.accuracy:.2f} %")
            )
        if self.agreement is not None:
            facts.append(("agreement", f"{100 * self.agreement:.2f} % of predictions"))
        if self.agreement is not None and len(self.errors) == 1:
            facts.append(
                ("readout", f"outputs off by {100 * self.readout_error:.1f} % of their root mean square")
            )
        else:
            facts += [("" if i else "error", line) for i, line in enumerate(self._errors())]
        if self.changed:
            facts.append(("changed model", self.changed))
        return [
            *facts,
            (
                "SOPs",
                f"{self.sops_per_sample:,.0f} per sample{against}"
                + (
                    f", and {self.analog_macs:,} multiply-adds of the analog input"
                    if self.analog_macs
                    else ""
                ),
            ),
            ("mean rate", f"{self.mean_rate:.4f} spikes per neuron and step"),
            *(("" if i else "advice", line) for i, line in enumerate(self.advice)),
        ]

    def _errors(self) -> list[str]:
        """How far each output is from the given model's."""
        return [
            (f"{name}: " if len(self.errors) > 1 else "")
            + f"{error.rms:.3g} (root mean square), {error.largest:.3g} at most:"
            f" {100 * error.relative:.2g} % of the output's spread"
            for name, error in self.errors.items()
        ]

    def _truth(self) -> Table:
        columns = (
            Column("layer"),
            Column("projection"),
            Column("neurons", "d"),
            Column("V_th min"),
            Column("median"),
            Column("max"),
            Column("ANN mean", ".4g"),
            Column("SNN mean", ".4g"),
            Column("error %", ".1f"),
            Column("correlation", ".4f"),
            Column("rate", ".4f"),
            Column("over V_th %", ".2f"),
            Column("dead", "d"),
        )
        rows = [
            (
                layer.name,
                layer.projection,
                layer.n_neurons,
                *_spread(layer.v_threshold),
                layer.ann_mean,
                layer.snn_mean,
                100 * layer.error,
                layer.correlation,
                layer.rate,
                _hundredfold(layer.saturated),
                layer.dead if layer.fires else None,
            )
            for layer in self.layers
        ]
        total = (
            "total",
            "",
            self.n_neurons,
            "",
            "",
            "",
            None,
            None,
            None,
            None,
            self.mean_rate,
            None,
            sum(layer.dead for layer in self.layers),
        )
        return Table(columns, tuple(rows), total)

    def _causes(self) -> Table:
        columns = (
            Column("layer"),
            Column("error %", ".1f"),
            Column("clipping %", ".0f"),
            Column("quantization %", ".0f"),
            Column("unevenness %", ".0f"),
            Column("correction %", ".1f"),
            Column("SOPs/sample", "d"),
            Column("ANN MACs", "d"),
            Column("analog MACs", "d"),
            Column("SOPs/MACs", ".3f"),
        )
        sops, n_sops = apportion([layer.sops / self.n_samples for layer in self.layers], 0)
        rows = [
            (
                layer.name,
                100 * layer.error,
                *map(_hundredfold, (layer.clipping, layer.quantization, layer.unevenness, layer.correction)),
                int(n),
                layer.macs,
                layer.analog_macs,
                ratio(layer.sops / self.n_samples, layer.macs),
            )
            for layer, n in zip(self.layers, sops)
        ]
        total = (
            "total",
            None,
            None,
            None,
            None,
            None,
            int(n_sops),
            self.macs,
            self.analog_macs,
            ratio(self.sops_per_sample, self.macs),
        )
        return Table(columns, tuple(rows), total)

    def _sweep(self) -> Table:
        values = self.agreement is None
        columns = (
            Column("T", "d"),
            Column("rms error", ".4g") if values else Column("accuracy", ".4f"),
            Column("error %", ".2f") if values else Column("agreement", ".4f"),
            Column("SOPs/sample", ".0f"),
            Column("SOPs/MACs", ".3f"),
            Column("rate", ".4f"),
            Column("parameters of T", "d"),
            Column(""),
        )
        marks = {self.worth_n_steps: "worth it"}
        rows = [
            (
                p.n_steps,
                *((p.rms_error, 100 * p.error) if values else (p.accuracy, p.agreement)),
                p.sops_per_sample,
                p.sops_per_mac,
                p.mean_rate,
                p.nearest_steps,
                marks.get(p.n_steps, ""),
            )
            for p in self.sweep
        ]
        return Table(columns, tuple(rows))


def explain(
    conversion: Conversion,
    *,
    sweep: Sequence[int] = SWEEP,
    samples: int = 64,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Run a conversion's ANN and SNN on held-out calibration samples, and say where they differ and why.

    Parameters
    ----------
    conversion : Conversion
    sweep : sequence of int
        Numbers of steps to compare, beside the network's own.
    samples : int
        The most held-out samples to use; time grows with them.
    threads : int, optional
        None: as many as processors that this process may use.
    progress : callable (what, done, total), optional

    Returns
    -------
    Explanation

    Raises
    ------
    ModelError
        If no samples were held out.
    RunError
        If a number of steps is out of range.
    """
    network, images = conversion.network, conversion.held_out[: max(0, samples)]
    if not len(images):
        raise ModelError(
            "there are no samples to compare the networks on",
            hint="convert with calibration inputs, and use at least one sample",
        )
    labels = (
        None if conversion.held_out_labels is None else np.asarray(conversion.held_out_labels[: len(images)])
    )
    targets = conversion.targets.some(len(images))
    simulators = {
        T: Simulator(network, T, threads=threads) for T in sorted({network.n_steps, *sweep})
    }  # plans only, so that a bad T is refused before the work
    compared = compare(
        conversion.ann,
        simulators[network.n_steps],
        images,
        progress and (lambda done, total: progress("comparing layers", done, total)),
    )
    layers = _completed(conversion, compared.layers)

    macs = sum(layer.macs for layer in layers)
    points: list[SweepPoint] = []
    predicted: list[np.ndarray | None] = []
    own_outputs = compared.outputs
    for T in tuple(simulators):
        simulator = simulators.pop(T)  # its arrays go before the next one's come
        if network.n_steps == T:
            outputs, sops = own_outputs, sum(layer.sops for layer in layers) / len(images)
            mean_rate = _mean_rate(layers)
        else:
            require(simulator.memory_bytes)
            result = simulator.run(
                images,
                progress=progress and partial(progress, f"running T = {T}"),
            )
            outputs, sops, mean_rate = result.named_outputs, result.sops_per_sample, result.mean_rate
        predictions, errors = targets.predicted(outputs), targets.errors(outputs)
        predicted.append(predictions)
        first = next(iter(errors.values()))
        points.append(
            SweepPoint(
                n_steps=T,
                nearest_steps=network.nearest_steps(T),
                agreement=targets.agreement(outputs),
                accuracy=_accuracy(predictions, labels),
                error=max(error.relative for error in errors.values()),
                rms_error=first.rms,
                largest_error=first.largest,
                sops_per_sample=sops,
                sops_per_mac=ratio(sops, macs),
                mean_rate=mean_rate,
            )
        )

    own = [point.n_steps for point in points].index(network.n_steps)
    errors = targets.errors(own_outputs)
    loss = loss_error = None
    if targets.predictions is None:
        worth_n_steps, why = worth_by_error(points)
        more = about_more_error(points, network.n_steps)
        lost = _about_error(layers, points[own])
    else:
        wanted = targets.predictions if labels is None else labels
        ann_right = targets.predictions == wanted
        right = [predictions == wanted for predictions in predicted if predictions is not None]
        worth_n_steps, why = worth_it(points, right, float(ann_right.mean()))
        loss, loss_error = float(ann_right.mean() - right[own].mean()), standard_error(ann_right, right[own])
        more = about_more_steps(points, right, ann_right, network.n_steps)
        lost = _about_loss(layers, points[own], loss, loss_error)
    return Explanation(
        n_samples=len(images),
        n_steps=network.n_steps,
        layers=layers,
        task=targets.task,
        agreement=points[own].agreement,
        errors=errors,
        ann_accuracy=_accuracy(targets.predictions, labels),
        accuracy=points[own].accuracy,
        loss=loss,
        loss_error=loss_error,
        changed=_about_change(conversion, images, targets),
        sweep=tuple(points),
        worth_n_steps=worth_n_steps,
        advice=(lost, why, *more),
    )


def _accuracy(predictions: np.ndarray | None, labels: np.ndarray | None) -> float | None:
    """The share of right predictions; None without labels or predictions."""
    return None if predictions is None or labels is None else float((predictions == labels).mean())


def _about_change(conversion: Conversion, images: np.ndarray, targets: Targets) -> str:
    """What the ANN loses against the given model, if it is another one."""
    if conversion.source is None:
        return ""
    outputs = forward_all(conversion.ann, images)
    agreement = targets.agreement(outputs)
    what = "with average pools in place of max pools, and without spikes,"
    if agreement is None:
        return (
            f"{what} the ANN is off by {100 * targets.relative_error(outputs):.2g} % of the outputs' spread"
        )
    return f"{what} the ANN keeps {100 * agreement:.2f} % of the given model's predictions"


def _about_error(layers: Sequence[LayerExplanation], point: SweepPoint) -> str:
    """What is lost of outputs that are values."""
    line = (
        f"at T = {point.n_steps}, outputs are off by {100 * point.error:.2g} % of their spread (root mean"
        f" square {point.rms_error:.3g}, at most {point.largest_error:.3g})"
    )
    return line if point.error <= TOLERABLE else line + _look_at(layers)


def _completed(conversion: Conversion, layers: Sequence[LayerExplanation]) -> tuple[LayerExplanation, ...]:
    """The layers with their dead channels and corrections, which calibration knows, and a diagnosis."""
    choice = conversion.choices.get(conversion.network.n_steps)
    corrections = choice.corrections if choice else {}
    completed: list[LayerExplanation] = []
    dead: dict[str, int] = {}
    for layer in layers:
        if layer.fires and layer.name in conversion.activations:
            dead[layer.name] = int(conversion.activations[layer.name].dead.sum())
        elif layer.projection.startswith("maxpool2d"):
            dead[layer.name] = dead.get(layer.sources[0], layer.dead)
        correction = corrections.get(layer.name)
        size = (
            None
            if correction is None
            else float(np.sqrt(np.square(correction.bias).mean())) / (layer.ann_rms or 1.0)
        )
        completed.append(replace(layer, dead=dead.get(layer.name, layer.dead), correction=size))
    return tuple(replace(layer, diagnosis=line) for layer, line in zip(completed, diagnose(completed)))


def _about_loss(layers: Sequence[LayerExplanation], point: SweepPoint, loss: float, error: float) -> str:
    if loss <= 0:
        more = f", {-100 * loss:.1f} points above the ANN's accuracy" if loss < 0 else ""
        return f"at T = {point.n_steps}, nothing is lost{more} (standard error {100 * error:.1f})"
    what = "of predictions differ from the ANN's" if point.accuracy is None else "points of accuracy are lost"
    line = (
        f"at T = {point.n_steps}, {100 * loss:.1f} {'% ' if point.accuracy is None else ''}{what} (standard"
        f" error {100 * error:.1f})"
    )
    if loss <= error:
        return line + ": no more than chance"
    return line + _look_at(layers)


def _look_at(layers: Sequence[LayerExplanation]) -> str:
    """Which layer is the first to look at."""
    worst = next((layer for layer in layers if layer.diagnosis), None) or max(
        layers, key=lambda layer: layer.error
    )
    return f"; look at layer {worst.name!r} first" + (
        f": {worst.diagnosis}" if worst.diagnosis else f", off by {100 * worst.error:.0f} %"
    )


def _mean_rate(layers: Sequence[LayerExplanation]) -> float:
    places = sum(layer.n_neurons * layer.n_steps * layer.n_samples for layer in layers if layer.fires)
    return sum(layer.n_spikes for layer in layers) / places if places else 0.0


def _row(layer: LayerExplanation) -> dict:
    v = layer.v_threshold
    response = (
        None
        if layer.response is None
        else [value if np.isfinite(value) else None for value in layer.response.tolist()]
    )
    return {
        "name": layer.name,
        "projection": layer.projection,
        "sources": list(layer.sources),
        "shape": list(layer.shape),
        "n_neurons": layer.n_neurons,
        "fires": layer.fires,
        "v_threshold": (
            None
            if v is None
            else {"min": float(v.min()), "median": float(np.median(v)), "max": float(v.max())}
        ),
        "ann_mean": layer.ann_mean,
        "ann_rms": layer.ann_rms,
        "snn_mean": layer.snn_mean,
        "error": layer.error,
        "correlation": layer.correlation,
        "rate": layer.rate,
        "saturated": layer.saturated,
        "dead": layer.dead,
        "clipping": layer.clipping,
        "quantization": layer.quantization,
        "unevenness": layer.unevenness,
        "response": response,
        "correction": layer.correction,
        "n_spikes": layer.n_spikes,
        "sops": layer.sops,
        "macs": layer.macs,
        "analog_macs": layer.analog_macs,
        "diagnosis": layer.diagnosis,
    }


def _spread(v_threshold: np.ndarray | None) -> tuple[str, str, str]:
    if v_threshold is None:
        return "-", "-", "-"
    return f"{v_threshold.min():.3g}", f"{np.median(v_threshold):.3g}", f"{v_threshold.max():.3g}"


def _hundredfold(share: float | None) -> float | None:
    return None if share is None else 100 * share
