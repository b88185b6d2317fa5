"""The picture of a report: rates and operations of its layers and, with several T, curves over T."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import RunError
from ..files.atomic import replace_file
from ..text import as_count, as_shape, printable
from .report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BAR", "LINE", "MAX_BARS", "draw_bars", "draw_curves", "save", "short", "write"]

MAX_BARS = 64
BAR, LINE = "#3b6ea8", "#c05a2e"


def save(path: str, report: Report) -> None:
    """Draw `report` to `path` (.png, .svg or .pdf), all or nothing.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    write(path, lambda: _figure(report))


def write(path: str, draw: Callable[[], Figure]) -> None:
    """Write the figure that `draw` makes to `path` (.png, .svg or .pdf), all or nothing.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no messages about caches
    import matplotlib

    picture = io.BytesIO()
    suffix = os.path.splitext(path)[1][1:].lower()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[suffix]
    with matplotlib.rc_context({"svg.hashsalt": "evsnn"}):  # else names in it are random
        draw().savefig(picture, format=suffix, metadata=metadata)
    try:
        replace_file(path, picture.getvalue())
    except OSError as error:
        raise RunError(
            "the picture cannot be written",
            where=path,
            got=error.strerror,
            hint="name a file in a folder that can be written to",
        ) from error


def _figure(report: Report) -> Figure:
    """Bars for each layer; below them, with several T, curves over T."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    result, sweep = report.main.result, len(report.runs) > 1
    busiest = sorted(result.layers, key=lambda layer: -layer.sops)[:MAX_BARS]
    layers = [layer for layer in result.layers if layer in busiest]
    bars_inches = 1.4 + 0.26 * len(layers)
    figure = Figure(figsize=(11, bars_inches + (3.4 if sweep else 0)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    of_all = (
        "" if layers == list(result.layers) else f", the {len(layers)} busiest of {len(result.layers)} layers"
    )
    title = (
        f"{os.path.basename(report.model)}: T = {result.n_steps}, {result.arithmetic},"
        f" {as_count(result.n_samples, 'sample')}{of_all}"
    )
    figure.suptitle(printable(title), parse_math=False)
    axes = figure.subplots(
        2 if sweep else 1, 2, squeeze=False, height_ratios=[bars_inches, 3.4] if sweep else None
    )

    names = [f"{short(layer.name)}  {as_shape(layer.shape)}" for layer in layers]
    rates = [result.rate(layer) if layer.fires else None for layer in layers]
    draw_bars(
        axes[0, 0], names, rates, ".4f", "spikes per neuron and step", f"rate, mean {result.mean_rate:.4f}"
    )
    sops = [layer.sops / result.n_samples for layer in layers]
    draw_bars(
        axes[0, 1],
        [short(layer.projection) for layer in layers],
        sops,
        ",.0f",
        "synaptic operations per sample",
        f"SOPs, {result.sops_per_sample:,.0f} per sample",
    )
    if sweep:
        runs = sorted(report.runs, key=lambda run: run.result.n_steps)
        steps = [run.result.n_steps for run in runs]
        last, unit = f"T = {steps[-1]}", "% of samples"
        shares = {
            "accuracy": [run.result.accuracy for run in runs],
            f"agreement with {last}": [report.agreement(run) for run in runs],
        }
        curves = {
            name: [100 * value for value in values if value is not None]
            for name, values in shares.items()
            if None not in values
        }
        if not curves:  # the outputs are no scores of classes
            unit = "in the outputs' unit"
            curves[f"rms difference from {last}"] = [run.result.deviation(runs[-1].result) for run in runs]
        draw_curves(axes[1, 0], steps, curves, unit, "what more steps bring")
        draw_curves(
            axes[1, 1],
            steps,
            {"SOPs per sample": [run.result.sops_per_sample for run in runs]},
            "SOPs per sample",
            "what they cost",
        )
        axes[1, 1].set_ylim(bottom=0)
    return figure


def draw_bars(
    axes, names: Sequence[str], values: Sequence[float | None], spec: str, label: str, title: str
) -> None:
    """Draw horizontal bars, the first layer on top; a dash if there is no value."""
    at = range(len(names))
    axes.barh(at, [value or 0 for value in values], color=BAR)
    axes.set_yticks(at, [printable(name) for name in names], fontsize=8, parse_math=False)
    axes.invert_yaxis()
    longest = max((value or 0 for value in values), default=0)
    axes.set_xlim(0, 1.22 * longest or 1)
    for row, value in zip(at, values):
        axes.text(value or 0, row, " -" if value is None else f" {value:{spec}}", va="center", fontsize=8)
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def draw_curves(
    axes, steps: Sequence[int], curves: Mapping[str, Sequence[float]], label: str, title: str
) -> None:
    """Draw values against T, on a logarithmic axis with a tick at each T."""
    for (name, values), color, style in zip(curves.items(), (BAR, LINE), ("o-", "s--")):
        axes.plot(steps, values, style, color=color, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(T) for T in steps])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("time steps T")
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(fontsize=8)


def short(name: str) -> str:
    """A name that is short enough for a label."""
    return name if len(name) <= 32 else f"{name[:31]}~"
