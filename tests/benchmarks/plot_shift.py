"""Draw what `dense_simulation.py` measured: accuracy against T for each shift, a panel a network.

usage: plot_shift.py MEASURED.json [MEASURED.json ...] OUT.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

CURVES = {"bias": ("V_th/2T each step (the paper)", "o-", "#3b6ea8"), "initial": ("V_th/2 at the start", "s--", "#2e8b57"), "none": ("no shift", "^:", "#c05a2e")}


def main(sources: list[str], target: str) -> None:
    figure = Figure(figsize=(5 * len(sources), 3.6), layout="constrained")
    for axes, source in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources):
        measured = json.loads(Path(source).read_text())
        axes.axhline(100 * measured["ann"], color="0.4", linewidth=1, label=f"ANN, {measured['ann']:.2%}")
        for shift, (label, style, colour) in CURVES.items():
            points = sorted((int(t), 100 * a) for t, a in measured["accuracy"][shift].items())
            axes.plot(*zip(*points), style, color=colour, label=label, markersize=4)
        axes.set_xscale("log", base=2)
        axes.set_xticks([t for t, _ in points], [str(t) for t, _ in points])
        axes.set(title=f"{measured['network']}, {measured['n_samples']:,} test images", xlabel="time steps T", ylabel="accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
    figure.savefig(target, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1]) if len(sys.argv) > 2 else sys.exit(__doc__)
