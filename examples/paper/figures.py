"""Pictures of the results, after the paper's Figures 2A, 2B, 3A-D and 4; docs/results.md explains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evsnn.output.plot import write
from examples.paper.records import AVERAGE
from examples.paper.results import System

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw"]

REGULAR, THRESHOLD = "#c05a2e", "#3b6ea8"
CURVES = {
    "RMP": ("regular ReLU, no shift (RMP)", "^:", REGULAR),
    "S": ("regular ReLU, shift (S)", "s--", "#d9a441"),
    "T": ("threshold ReLU, no shift (T)", "v:", "#2e8b57"),
    "TS": ("threshold ReLU, shift (TS)", "o-", THRESHOLD),
}
FOUR = ("vgg16_cifar10", "resnet20_cifar10", "vgg16_cifar100", "resnet20_cifar100")

Panel = Callable[["Axes", System], bool]
"""Draws a system; False if nothing was measured that it could draw."""


def largest_activations(axes: Axes, system: System) -> bool:
    """The largest activation of each layer, of both source ANNs."""
    drawn = False
    for activation, style, colour in (("regular", "^-", REGULAR), ("threshold", "o-", THRESHOLD)):
        values = system.sources.get(activation, {}).get("largest_activations")
        if values:
            axes.plot(
                range(1, len(values) + 1),
                values,
                style,
                color=colour,
                markersize=3,
                label=f"{activation} ReLU",
            )
            drawn = True
    axes.set(xlabel="layer", ylabel="largest activation", yscale="log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter("{x:g}")
    return drawn


def with_and_without_limit(axes: Axes, system: System) -> bool:
    """Accuracy against T without a shift, from both source ANNs, and those of the ANNs."""
    for activation, colour in (("regular", REGULAR), ("threshold", THRESHOLD)):
        if accuracy := system.sources.get(activation, {}).get("accuracy"):
            axes.axhline(
                100 * accuracy, color=colour, linewidth=1, alpha=0.6, label=f"ANN, {activation} ReLU"
            )
    return curves(axes, system, ("RMP", "T"))


def all_methods(axes: Axes, system: System) -> bool:
    """Accuracy against T of the four ways to convert."""
    if accuracy := system.sources.get("threshold", {}).get("accuracy"):
        axes.axhline(100 * accuracy, color="0.4", linewidth=1, label="ANN, threshold ReLU")
    return curves(axes, system, tuple(CURVES))


def curves(axes: Axes, system: System, methods: Sequence[str]) -> bool:
    ticks: set[int] = set()
    for method in methods:
        label, style, colour = CURVES[method]
        points = [
            (T, 100 * row["accuracy"])
            for T in system.steps((method,))
            if T != AVERAGE and (row := system.fullest(method, T))
        ]
        if points:
            axes.plot(*zip(*points), style, color=colour, markersize=4, label=label)
            ticks |= {T for T, _ in points}
    if ticks:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [str(T) for T in sorted(ticks)])
        axes.set_xticks([], minor=True)
    axes.set(xlabel="time steps T", ylabel="accuracy, %")
    return bool(ticks)


def cost(axes: Axes, system: System) -> bool:
    """Draw accuracy against synaptic operations, as a multiple of the ANN's multiply-adds.

    Accuracy is that of the simulation with more images; T stands beside each point.
    """
    macs = system.sources.get("threshold", {}).get("macs")
    drawn = False
    for method, label, style, colour in (("TS", "TS", "o-", THRESHOLD), ("auto", "auto", "s-", "#7b3fa0")):
        rows = [
            row
            for T in system.steps((method,), ("engine",))
            if (row := system.row(method, "engine", T)) and row["sops"] is not None
        ]
        if rows and macs:
            points = [
                (row["sops"] / macs, 100 * system.fullest(method, row["T"])["accuracy"]) for row in rows
            ]
            axes.plot(*zip(*points), style, color=colour, markersize=4, label=label)
            for row, point in zip(rows, points):
                axes.annotate(
                    str(row["T"]), point, xytext=(3, -9), textcoords="offset points", fontsize=7, color=colour
                )
            drawn = True
    if drawn:
        axes.axvline(1, color="0.6", linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        if accuracy := system.sources.get("threshold", {}).get("accuracy"):
            axes.axhline(100 * accuracy, color="0.4", linewidth=1, label="ANN, threshold ReLU")
    axes.set(xlabel="synaptic operations / ANN's multiply-adds", ylabel="accuracy, %")
    return drawn


FIGURES: dict[str, tuple[str, Panel, tuple[str, ...] | None]] = {
    "2A": ("paper_fig2a.png", largest_activations, None),
    "2B": ("paper_fig2b.png", with_and_without_limit, None),
    "3A-D": ("paper_fig3.png", all_methods, FOUR),
    "4": ("paper_fig4.png", cost, None),
}
"""The paper's figure -> file, what a panel shows, and the systems (None: all)."""


def draw(systems: Sequence[System], folder: Path) -> dict[str, str]:
    """Draw each figure for which something was measured: the paper's figure -> the name of the file."""
    drawn = {}
    for figure, (name, panel, wanted) in FIGURES.items():
        shown = [
            system
            for system in systems
            if (wanted is None or system.name in wanted) and panel(_scratch(), system)
        ]
        if shown:
            folder.mkdir(parents=True, exist_ok=True)
            write(str(folder / name), lambda shown=shown, panel=panel: _panels(shown, panel))
            drawn[figure] = name
    return drawn


def _scratch() -> Axes:
    """Axes that nobody sees: whether there is anything to draw."""
    from matplotlib.figure import Figure

    return Figure().subplots()


def _panels(systems: Sequence[System], panel: Panel) -> Figure:
    from matplotlib.figure import Figure

    columns = min(len(systems), 2 if len(systems) in (2, 4) else 3)
    n_rows = -(-len(systems) // columns)
    figure = Figure(figsize=(4 * columns, 2.9 * n_rows), dpi=100, layout="constrained")
    grid = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, system in zip(grid, systems):
        panel(axes, system)
        axes.set_title(system.title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    entries = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels())}
    for axes in grid[len(systems) :]:
        axes.set_axis_off()
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=min(len(entries), 3),
        fontsize=8,
        frameon=False,
    )
    return figure
