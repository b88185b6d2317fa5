"""The whole conversion: from a model file and samples to a spiking `Network`, with all that was found out.

The calibration inputs are divided: the last quarter, at most `HELD_OUT`, is held out for choosing and
reporting; thresholds come from the rest, bias corrections from its first `CORRECTED`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .. import __version__
from ..arguments import checked_seed
from ..errors import InputError, ModelError
from ..files.weights import as_stored
from ..network.layers import IF
from ..network.network import Network, Samples
from ..network.reading import n_classes_of
from ..text import printable
from .balance.balance import Balanced, assemble, balance, with_readout, without_data
from .balance.calibration import CalibrationSet, open_calibration, suspicions
from .balance.options import AUTO, DEFAULT_STEPS, Options, Recipe, checked_steps
from .balance.refit import refit as refit_layers
from .balance.refit import refit_bytes, samples_for
from .balance.selection import Choice, choose
from .balance.statistics import Activations, measure
from .balance.targets import Targets
from .lowering.ann import Ann, forward_all
from .lowering.lowering import lower_graph
from .needs import needed_bytes
from .onnx.evaluate import evaluate
from .onnx.graph import Graph
from .onnx.importer import import_onnx

if TYPE_CHECKING:
    import onnx

__all__ = ["Calibration", "Conversion", "Model", "Progress", "convert", "convert_model"]

HELD_OUT = 256
CORRECTED = 256
CORRECTED_STEPS = 1024
"""Most samples times steps that a correction sees, but not fewer than 32 samples."""
TELLING = 16
"""Held-out samples from which on a warning may say that they tell little."""
KEPT = 16
"""Samples that a network keeps."""
COMPARED = 64
"""Calibration inputs on which the converted ANN is compared with the source model."""
TOLERANCE = 1e-3
"""Largest allowed difference between their scores, as a share of the largest score."""

Model: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"
Calibration: TypeAlias = (
    "str | bytes | os.PathLike[str] | np.ndarray | tuple[np.ndarray, np.ndarray] | CalibrationSet"
)

_SCALING = ("Add", "BatchNormalization", "Div", "Mul", "Sub")
_MOVING = ("Flatten", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and of how much (0: unknown)."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """A converted model, and how it was made.

    Parameters
    ----------
    network : Network
    ann : Ann
        The ANN in the same layers.
    choices : mapping of int to Choice
        What was chosen for each T.
    mismatch : float
        Largest difference of the ANN's scores from the source model's, as a share of its largest score.
    activations : mapping of str to Activations
        By `IF` layer, and of the readout; what thresholds were made from.
    held_out : (n, *input_shape) float32
        Inputs that were used only to choose recipes, as the network reads them; n = 0 without samples.
    held_out_labels : (n,) int64, optional
    targets : Targets
        What the given model makes of them.
    notes : tuple of str
        What importing and folding did.
    warnings : tuple of str
        What the user should look at.
    source : Graph, optional
        The given model, if the ANN is another one: with average pools in place of its max pools.
    """

    network: Network
    ann: Ann
    choices: Mapping[int, Choice]
    mismatch: float
    activations: Mapping[str, Activations]
    held_out: np.ndarray
    held_out_labels: np.ndarray | None
    targets: Targets
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    source: Graph | None = None

    def targets_of(self, samples: np.ndarray) -> Targets:
        """What the given model makes of samples in its own layout, (n, *ann.input_shape)."""
        return _targets(self.ann, samples, self.source)


def convert(
    model: Model,
    calibration: Calibration | None = None,
    *,
    n_steps: int | Sequence[int] | None = None,
    threshold: str = AUTO,
    granularity: str | None = None,
    shift: str | None = None,
    readout: str = "membrane",
    correction: bool | None = None,
    negative_threshold: float | None = None,
    warm_up_steps: int | None = None,
    max_pool: str = "spiking",
    coding: str = "steps",
    refit: bool = False,
    task: str | None = None,
    storage: str = "float32",
    output: str | Sequence[str] | None = None,
    samples: int = KEPT,
    progress: Progress | None = None,
) -> Network:
    """Convert a trained ReLU network into a spiking one.

    What the user should look at is said by `warnings.warn`; `python -m evsnn.convert` reports more.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        An ONNX file with one input.
    calibration : path, array, (images, labels) or CalibrationSet, optional
        A few hundred inputs as the model reads them, (n, *input_shape). A path names a .npz, .npy or .h5 file
        with ``images`` (and ``labels``). None: thresholds come from limits of the ReLUs (Clip) or from batch
        norms.
    n_steps : int or sequence of int, optional
        T, one or several; the first is the network's own. None: 32, or 15 graded levels.
    threshold, granularity, shift, readout
        As for `evsnn.conversion.balance.options.Options`.
    correction, negative_threshold, warm_up_steps, max_pool, coding, refit, task, storage
        As for `Options`, too.
    output : str or sequence of str, optional
        The tensors to read out, the first of which is read by the task. None: all outputs of floats, without
        operators at the end that only move values or bring them to a range.
    samples : int
        How many calibration samples the network keeps, so that it runs without a file of inputs.
    progress : callable (what, done, total), optional
        It is called with what is being done, how much of it is done, and of how much (0: unknown).

    Returns
    -------
    Network
        With thresholds, shift and biases for `n_steps`; with step parameters if `n_steps` names several T. It
        has some of the samples and metadata, as the command's file does.

    Raises
    ------
    ModelError
        If the model cannot be read or converted, or its conversion would not compute the same.
    InputError
        If the calibration inputs do not fit.
    MissingExtraError
        If the package onnx is not installed.

    Examples
    --------
    >>> converted = evsnn.convert("model.onnx", calibration=images, n_steps=8, threshold="mse")
    >>> converted.n_steps, converted.readout
    (8, 'membrane')
    """
    options = Options(
        n_steps=checked_steps(DEFAULT_STEPS.get(coding, 1) if n_steps is None else n_steps),
        threshold=threshold,
        granularity=granularity,
        shift=shift,
        readout=readout,
        correction=correction,
        negative_threshold=negative_threshold,
        warm_up_steps=warm_up_steps,
        max_pool=max_pool,
        coding=coding,
        refit=refit,
        task=task,
        storage=storage,
    )
    kept = checked_seed(samples, "samples")
    conversion = convert_model(model, calibration, options, progress, output, kept)
    for warning in conversion.warnings:
        warnings.warn(warning, stacklevel=2)
    return conversion.network


def convert_model(
    model: Model,
    calibration: Calibration | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    output: str | Sequence[str] | None = None,
    kept: int = KEPT,
    before: Callable[[Mapping[str, int], Network], object] | None = None,
    sweep: Sequence[int] = (),
) -> Conversion:
    """As `convert`, but it returns all that was found out.

    Parameters
    ----------
    model, calibration
        As for `convert`.
    options : Options
    progress, output
        As for `convert`.
    kept : int
        How many samples the network keeps.
    before : callable (parts, network), optional
        It is called before the conversion begins, with the bytes that it takes, by what they are for, and
        with the network that is to be balanced.
    sweep : sequence of int
        Further T that the caller will run the result with on the held-out samples; `before` is told of their
        memory, too.

    Returns
    -------
    Conversion

    Raises
    ------
    ModelError
        If the model cannot be read or converted, or its conversion would not compute the same.
    InputError
        If the calibration inputs do not fit.
    MissingExtraError
        If the package onnx is not installed.
    """
    tell = progress or (lambda what, done, total: None)
    tell("reading the model", 0, 1)
    graph = import_onnx(model, output=output)
    ann = lower_graph(graph, max_pool=options.max_pool)
    tell("reading the model", 1, 1)
    samples = (
        calibration
        if calibration is None or isinstance(calibration, CalibrationSet)
        else open_calibration(calibration)
    )
    task = options.task or _task(graph, ann, samples is not None and samples.labelled)
    ann = replace(ann, network=ann.network.replace(task=task))
    if samples is not None:
        samples = samples.fitted(ann.input_shape, ann.network.n_classes)
    elif options.refit:
        raise InputError("weights are refitted to samples", where="refit", expected="calibration samples")
    n = 0 if samples is None else samples.n
    n_held_out = min(HELD_OUT, n // 4)
    n_used = n - n_held_out

    if before is not None:
        n_corrected = {
            T: min(n_used, CORRECTED, max(32, CORRECTED_STEPS // (1 if options.coding == "graded" else T)))
            if any(recipe.correction for recipe in options.recipes(T))
            else 0
            for T in options.n_steps
        }
        planned = with_readout(ann, options.readout).replace(coding=options.coding)
        n_compared = 8 if samples is None else min(n, COMPARED)
        needed = needed_bytes(ann, graph, planned, n_corrected, n_compared, n_held_out, n_used, sweep)
        if options.refit:  # before the recipes are tried, and what it takes is free again then
            more = refit_bytes(ann, samples_for(ann, n_used))
            needed = {**needed, "tensors and runs": max(needed["tensors and runs"], more)}
        before(needed, planned)

    exact = options.max_pool == "spiking" or not any("MaxPool" in node.op for node in graph.nodes)
    source = None if exact else graph
    mismatch = _compare(graph, ann, None if samples is None else samples.read(0, min(n, COMPARED)), exact)
    told: list[str] = []
    if samples is None:
        activations = without_data(ann)
        corrected, held_out = None, np.zeros((0, *ann.network.input_shape), np.float32)
        unseen = held_out.reshape(0, *ann.input_shape)
    else:
        fitted = samples

        def batches() -> Iterator[np.ndarray]:
            for images in fitted.batches(
                n_used, ann.batch
            ):  # many at a time: each batch inflates its chunks of a file
                for first in range(0, len(images), ann.batch):
                    yield ann.arranged(images[first : first + ann.batch])

        activations = measure(
            ann,
            batches,
            lambda done, total: tell("measuring activations", done, total or 2 * -(-n_used // ann.batch)),
        )
        corrected = ann.arranged(samples.read(0, min(n_used, CORRECTED)))
        unseen = samples.read(n_used, n)
        held_out = ann.arranged(unseen)
        told += _silent(activations, ann)
    targets = _targets(ann, unseen, source)
    labels = (
        None if samples is None or samples.labels is None else np.asarray(samples.labels[n_used:], np.int64)
    )
    told += _telling_little(targets, labels)
    if samples is not None:
        told = [*suspicions(samples, own_scale=_scales_itself(graph) or _proven(targets, labels)), *told]
    network = with_readout(ann, options.readout).replace(coding=options.coding)
    refits: tuple[str, ...] = ()
    if options.refit and samples is not None:
        some = ann.arranged(samples.read(0, samples_for(ann, n_used)))
        network, refits = _refitted(ann, network, activations, options, some, tell)
    if options.storage != "float32":
        # Thresholds, corrections and choices are then made for the weights of the file. They still aim at the
        # ANN of the source.
        network = as_stored(network, options.storage)
    if samples is not None and n:
        network = network.replace(input_range=_input_range(samples, ann))
    neurons = {layer.name for layer in ann.network.layers if isinstance(layer, IF)} - ann.fixed
    normal = samples is not None or neurons <= set(ann.moments)
    choices, balanced = {}, []
    for n_steps in options.n_steps:

        def make(recipe: Recipe, n_steps: int = n_steps) -> tuple[Balanced, Network]:
            sends = 1 if options.coding == "graded" else n_steps
            some = None if corrected is None else corrected[: max(32, CORRECTED_STEPS // sends)]
            made = balance(
                ann,
                network,
                activations,
                recipe,
                n_steps,
                some,
                lambda done, total: tell(f"T = {n_steps}: {recipe}", done, total),
            )
            return made, assemble(network, recipe.shift, [made])

        untried = options.unseen(normal)
        if samples is None:
            untried = replace(untried, correction=False)
        choices[n_steps], made = choose(
            options.recipes(n_steps) if n_held_out else (untried,), n_steps, make, held_out, targets
        )
        balanced.append(made)
    result = assemble(network, balanced[0].recipe.shift, balanced)
    result = result.replace(
        samples=None if samples is None else _kept(samples, ann, kept),
        metadata=_provenance(model, ann, n, choices),
    )
    return Conversion(
        network=result,
        ann=ann,
        choices=choices,
        mismatch=mismatch,
        activations=activations,
        held_out=held_out,
        held_out_labels=labels,
        targets=targets,
        notes=(*ann.notes, *refits),
        warnings=tuple(told),
        source=source,
    )


def _refitted(
    ann: Ann,
    network: Network,
    activations: Mapping[str, Activations],
    options: Options,
    samples: np.ndarray,
    tell: Progress,
) -> tuple[Network, tuple[str, ...]]:
    """The network with weights refitted for the first T, and a note of what became of them."""
    T = options.n_steps[0]
    recipe = replace(options.unseen(normal=True), correction=False)
    tuned = assemble(network, recipe.shift, [balance(ann, network, activations, recipe, T)])
    layers, found = refit_layers(ann, tuned, T, samples, lambda done, total: tell("refitting", done, total))
    changed = sum(one.strength is not None for one in found)
    note = (
        f"{changed} of {len(found)} layers have weights that were refitted to counts of 0 to {T}, with"
        f" {len(samples)} samples"
    )
    if changed < len(found):
        note += "; the others lost nothing, or held-out samples did not gain"
    return network.replace(layers=[layers.get(x.name, x) for x in network.layers]), (note,)


def _task(graph: Graph, ann: Ann, labelled: bool) -> str:
    """How the first output is read, if nothing is said of it: see `Options`."""
    network = ann.network
    if len(network.output_shape) != 1:
        return "regress"
    if labelled:
        return "classify"
    if len(network.outputs) > 1 or network.output_shape == (int(np.prod(network.input_shape)),):
        return "regress"
    return "regress" if network.output_shape == (1,) and "Sigmoid" not in graph.left else "classify"


def _targets(ann: Ann, samples: np.ndarray, source: Graph | None) -> Targets:
    """What the given model makes of samples in its own layout.

    That is what the ANN makes of them, unless there is a `source` that differs from it.
    """
    network = ann.network
    if not len(samples):
        outputs = {o.name: np.zeros((0, *network.shapes[o.name]), np.float32) for o in network.outputs}
    elif source is None:
        outputs = forward_all(ann, ann.arranged(samples))
    else:
        found = _evaluated(source, samples, ann)
        outputs = {name: values.reshape(-1, *network.shapes[name]) for name, values in found.items()}
    return Targets(network.task, outputs)


def _evaluated(graph: Graph, samples: np.ndarray, ann: Ann) -> dict[str, np.ndarray]:
    """The graph's own values of what each readout of the ANN reads, by the readout's name."""
    values = evaluate(graph, samples, outputs=ann.outputs)
    found = {}
    for layer, tensor, window in zip(ann.network.outputs, ann.outputs, ann.windows):
        found[layer.name] = values[tensor] if window is None else values[tensor][:, :, window[0], window[1]]
    return found


def _kept(samples: CalibrationSet, ann: Ann, n: int) -> Samples | None:
    """The first few samples, as the network reads them."""
    n = min(n, samples.n)
    if not n:
        return None
    labels = None if samples.labels is None else samples.labels[:n]
    return Samples(ann.arranged(samples.read(0, n)), labels)


def _provenance(
    model: Model, ann: Ann, n_samples: int, choices: Mapping[int, Choice]
) -> dict[str, str | int | float]:
    """Where the network comes from, without folders and times, which would differ from run to run."""
    path = model if isinstance(model, (str, os.PathLike)) else None
    notes: dict[str, str | int | float] = {
        "source": "model" if path is None else printable(os.path.basename(os.fsdecode(path))),
        "source_sha256": _sha256(model),
        "evsnn": __version__,
        "calibration_samples": n_samples,
        "ann_macs": sum(ann.macs.values()),
    }
    for T, choice in choices.items():
        notes[f"recipe_T{T:02d}"] = str(choice.recipe)
        taken = choice.taken
        if taken is not None and taken.agreement is not None:
            notes[f"held_out_agreement_T{T:02d}"] = taken.agreement
        elif taken is not None:
            notes[f"held_out_error_T{T:02d}"] = taken.divergence**0.5
    return notes


def _sha256(model: Model) -> str:
    """The SHA-256 of a model, in hexadecimal."""
    digest = hashlib.sha256()
    if isinstance(model, (str, os.PathLike)):
        with open(model, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    else:
        digest.update(
            model if isinstance(model, (bytes, bytearray, memoryview)) else model.SerializeToString()
        )
    return digest.hexdigest()


def _scales_itself(graph: Graph) -> bool:
    """Whether the model's first operators scale its input, which may then be of any scale."""
    same = {graph.input}
    for node in graph.nodes:
        if same.intersection(node.inputs):
            if node.op in _SCALING:
                return True
            if node.op in _MOVING:
                same.update(node.outputs)
    return False


def _proven(targets: Targets, labels: np.ndarray | None) -> bool:
    """Whether labels prove that samples are in the model's scale: it predicts them far better than chance."""
    if labels is None or targets.predictions is None or len(labels) < TELLING:
        return False
    chance = float(np.bincount(labels).max()) / len(labels)
    right = float((targets.predictions == labels).mean())
    return right > chance + 3 * (chance * (1 - chance) / len(labels)) ** 0.5


def _compare(graph: Graph, ann: Ann, samples: np.ndarray | None, exact: bool) -> float:
    """The mismatch of the ANN and the source model.

    Raises
    ------
    ModelError
        If it is larger than rounding can explain.
    """
    if samples is None:
        samples = np.random.default_rng(0).standard_normal((8, *ann.input_shape), np.float32)
    ours = forward_all(ann, ann.arranged(samples))
    mismatch = 0.0
    for name, source in _evaluated(graph, samples, ann).items():
        if not np.isfinite(source).all():
            raise InputError(
                "the model's outputs are not finite on the calibration inputs",
                got="NaN or infinity",
                hint="check the inputs' scale",
            )
        largest = float(np.abs(source).max()) or 1.0
        mismatch = max(mismatch, float(np.abs(source.reshape(ours[name].shape) - ours[name]).max()) / largest)
    if exact and not mismatch <= TOLERANCE:
        raise ModelError(
            "the converted ANN does not compute what the model does",
            got=f"scores that differ by {mismatch:.2g} of the largest",
            expected=f"at most {TOLERANCE:g}",
            hint="this is a defect of the conversion: please report it with the model",
        )
    return mismatch


def _input_range(samples: CalibrationSet, ann: Ann) -> tuple[float, float]:
    """Smallest and largest calibration input."""
    low, high = np.inf, -np.inf
    for first in range(0, samples.n, 256):
        part = samples.read(first, min(first + 256, samples.n))
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    return (low, high) if low < high else (min(low, 0.0), max(high, 0.0) or 1.0)


def _telling_little(targets: Targets, labels: np.ndarray | None) -> list[str]:
    """Warnings of held-out samples on which agreement or accuracy means little."""
    n, predictions = len(targets.first), targets.predictions
    if n < TELLING or predictions is None:
        return []
    found, n_classes = [], n_classes_of(targets.first.shape[1:])
    if (predictions == predictions[0]).all():
        doubt = "are they in the model's own scale, and of several classes?"
        found.append(
            f"the ANN predicts class {predictions[0]} on all {n} held-out samples, so that agreement says"
            f" little; {doubt}"
        )
    chance = 1 / n_classes
    if (
        labels is not None
        and (right := float((predictions == labels).mean())) <= chance + (chance * (1 - chance) / n) ** 0.5
    ):
        doubt = "are they in the model's own scale, and do the labels count its outputs?"
        found.append(
            f"the ANN is right on {right:.1%} of the held-out samples, no better than chance; {doubt}"
        )
    return found


def _silent(activations: Mapping[str, Activations], ann: Ann) -> list[str]:
    """Warnings of layers that do little or nothing."""
    found, readouts = [], {layer.name for layer in ann.network.outputs}
    for name, a in activations.items():
        share = float(a.dead.mean())
        if name not in readouts and share > 0.5:
            what = (
                "no activation on any calibration input"
                if share == 1
                else f"{share:.0%} of its channels are never active"
            )
            found.append(f"layer {name!r}: {what}")
    return found
