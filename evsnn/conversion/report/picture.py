"""The picture of an explanation: errors and rates, outputs against activations, and the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import MissingExtraError
from ...output.plot import LINE, MAX_BARS, draw_bars, draw_curves, short, write
from ...text import as_count, has_extra, printable
from .comparison import RESPONSE_EDGES, LayerExplanation
from .explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save"]

_PARTS = {
    "clipping": ("#1f3b5c", ""),
    "quantization": ("#7f9fc4", ""),
    "unevenness": ("#dfe6ee", "////"),
}  # dark, middle, light: in grey too
_EDGE = "#33475b"
_LINES = (("#1f3b5c", "o-"), (LINE, "s--"), ("#5b8a72", "^-."), ("#8a6fa8", "v:"))
_FOOT = 3.6  # inches of the lower panels


def save(path: str, explanation: Explanation) -> None:
    """Draw `explanation` to `path` (.png, .svg or .pdf), all or nothing.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    RunError
        If the file cannot be written.
    """
    if not has_extra("matplotlib"):
        raise MissingExtraError("a plot needs matplotlib", hint='install it with: pip install "evsnn[plot]"')
    write(path, lambda: _figure(explanation))


def _figure(explanation: Explanation) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    worst = sorted(explanation.layers, key=lambda layer: -layer.error)[:MAX_BARS]
    layers = [layer for layer in explanation.layers if layer in worst]
    head = 1.5 + 0.28 * max(4, len(layers))
    figure = Figure(figsize=(14, head + _FOOT + 0.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    of_all = (
        ""
        if len(layers) == len(explanation.layers)
        else f", the {len(layers)} worst of {len(explanation.layers)} layers"
    )
    figure.suptitle(
        f"SNN against ANN, T = {explanation.n_steps},"
        f" {as_count(explanation.n_samples, 'held-out sample')}{of_all}"
    )
    axes = figure.subplots(2, 3, height_ratios=[head, _FOOT])
    _errors(axes[0, 0], layers, legend_at=-0.5 / (head - 1.1))
    nameless = [""] * len(layers)
    draw_bars(
        axes[0, 1],
        nameless,
        [layer.rate for layer in layers],
        ".4f",
        "spikes per neuron and step",
        f"rate, mean {explanation.mean_rate:.4f}",
    )
    saturated = [None if layer.saturated is None else 100 * layer.saturated for layer in layers]
    draw_bars(
        axes[0, 2],
        nameless,
        saturated,
        ".2f",
        "% of the ANN's activations",
        "activations above the threshold",
    )
    _responses(axes[1, 0], explanation.layers)
    _quality(axes[1, 1], explanation)
    _costs(axes[1, 2], explanation)
    return figure


def _errors(axes, layers: Sequence[LayerExplanation], legend_at: float) -> None:
    """Draw a bar of each layer's error, divided by its causes, with the correlation."""
    names = [f"{short(layer.name)}  ({short(layer.projection)})" for layer in layers]
    errors = [100 * layer.error for layer in layers]
    draw_bars(
        axes,
        names,
        errors,
        ".1f",
        "% of the ANN's root mean square",
        "error of a layer's output, and its causes",
    )
    for text, layer in zip(axes.texts, layers):
        text.set_text(
            f" {100 * layer.error:.1f}"
            + ("" if layer.correlation is None else f"  (r {layer.correlation:.3f})")
        )
    for bar in axes.patches:
        bar.set(facecolor="white", edgecolor=_EDGE, linewidth=0.4)
    if not all(any(_length(layer, name) for name in _PARTS) for layer in layers if layer.error):
        axes.patches[-1].set_label("not divided")
    axes.set_xlim(0, 1.5 * max(errors) or 1)
    start = np.zeros(len(layers))
    for name, (color, hatch) in _PARTS.items():
        lengths = np.array([_length(layer, name) for layer in layers])
        axes.barh(
            range(len(layers)),
            lengths,
            left=start,
            color=color,
            hatch=hatch,
            edgecolor=_EDGE,
            linewidth=0.4,
            label=name,
        )
        start += lengths
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, legend_at), ncols=4, frameon=False)


def _length(layer: LayerExplanation, part: str) -> float:
    """The length of a part in the bar, in proportion to its share; a share below 0 is left out."""
    shares = {name: max(0.0, getattr(layer, name) or 0.0) for name in _PARTS}
    total = sum(shares.values())
    return 100 * layer.error * shares[part] / total if total else 0.0


def _responses(axes, layers: Sequence[LayerExplanation]) -> None:
    """Draw the mean output against the activation, both in units of V_th, of the worst layers."""
    worst = sorted((layer for layer in layers if layer.response is not None), key=lambda layer: -layer.error)[
        : len(_LINES)
    ]
    centres = (RESPONSE_EDGES[:-1] + RESPONSE_EDGES[1:]) / 2
    axes.plot(
        RESPONSE_EDGES, np.minimum(RESPONSE_EDGES, 1), color="black", linewidth=3, alpha=0.25, label="ideal"
    )
    for layer, (color, style) in zip(worst, _LINES):
        response = layer.response
        if response is None:
            continue
        known = np.isfinite(response)
        axes.plot(
            centres[known],
            response[known],
            style,
            color=color,
            markersize=4,
            linewidth=1.2,
            label=printable(short(layer.name)),
        )
    axes.set_xlabel("ANN's activation / V_th", parse_math=False)
    axes.set_ylabel("SNN's mean output / V_th", parse_math=False)
    axes.set_title("output against activation, worst layers", fontsize=10)
    axes.set_xlim(0, RESPONSE_EDGES[-1])
    axes.set_ylim(0, 1.1)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(fontsize=8, loc="best").get_texts():
        text.set_parse_math(False)


def _quality(axes, explanation: Explanation) -> None:
    steps = [point.n_steps for point in explanation.sweep]
    shares = [point.agreement for point in explanation.sweep if point.agreement is not None]
    if not shares:
        errors = [100 * point.error for point in explanation.sweep]
        label = "% of the outputs' spread"
        draw_curves(axes, steps, {"error against the ANN": errors}, label, "what steps bring")
        axes.set_ylim(bottom=0)
        _mark(axes, explanation)
        axes.legend(fontsize=8, loc="best")
        return
    curves: dict[str, Sequence[float]] = {"agreement with the ANN": [100 * share for share in shares]}
    known = [point.accuracy for point in explanation.sweep if point.accuracy is not None]
    if explanation.accuracy is not None:
        curves = {"accuracy": [100 * value for value in known]} | curves
    draw_curves(axes, steps, curves, "% of samples", "what steps bring")
    if explanation.ann_accuracy is not None:
        axes.axhline(
            100 * explanation.ann_accuracy,
            color="black",
            linewidth=1,
            linestyle=":",
            label="accuracy of the ANN",
        )
    _mark(axes, explanation)
    axes.legend(fontsize=8, loc="best")


def _costs(axes, explanation: Explanation) -> None:
    steps = [point.n_steps for point in explanation.sweep]
    ratios = [point.sops_per_mac or 0.0 for point in explanation.sweep]
    draw_curves(
        axes, steps, {"SOPs per MAC of the ANN; SOPs per sample": ratios}, "SOPs / MACs", "what they cost"
    )
    axes.axhline(1, color="black", linewidth=1, linestyle=":", label="as many additions as the ANN has MACs")
    _mark(axes, explanation)
    if min(ratios) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(min(1.0, *ratios) / 2, 15 * max(1.0, *ratios))
    axes.margins(x=0.2)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for T, ratio, point in zip(steps, ratios, explanation.sweep):
        axes.annotate(
            _compact(point.sops_per_sample),
            (T, ratio),
            textcoords="offset points",
            xytext=(-5, 5),
            ha="right",
            fontsize=8,
            bbox=background,
        )
    axes.legend(fontsize=8, loc="upper left")


def _mark(axes, explanation: Explanation) -> None:
    """Mark the T that is worth it."""
    if explanation.worth_n_steps is not None:
        axes.axvline(
            explanation.worth_n_steps,
            color="grey",
            linewidth=6,
            alpha=0.25,
            label=f"T = {explanation.worth_n_steps} is worth it",
        )


def _compact(count: float) -> str:
    """A count with three digits: ``25.4 M``."""
    for unit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return f"{count:.3g}"
