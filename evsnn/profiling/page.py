"""A profile as an HTML page: one file with everything in it; plotly.js draws the charts."""

from __future__ import annotations

import html
import json
import string
from dataclasses import asdict
from importlib import resources

from ..output.table import Table
from ..text import printable
from .report import Report

__all__ = ["page"]


def page(report: Report) -> str:
    """The page as text. Nothing is fetched when it is opened."""
    from plotly.offline import get_plotlyjs

    profile, result = report.profile, report.profile.result
    latency, energy = profile.percentiles(), report.energy()
    numbers = [
        (f"{profile.total_ms / profile.workers:.3f} ms", "per sample, steady"),
        (f"{latency['p99']:.3f} ms", "p99 latency"),
        (f"{result.sops_per_sample:,.0f}", "SOPs per sample"),
        (f"{result.mean_rate:.4f}", "spikes per neuron and step"),
        (f"{1e6 * energy['spiking_total']:.1f} uJ", "per sample, estimated"),
    ]
    if result.accuracy is not None:
        numbers.insert(0, (f"{100 * result.accuracy:.2f} %", f"of {result.n_samples:,} samples right"))
    template = string.Template(
        (resources.files("evsnn") / "profiling" / "pages" / "profile.html").read_text(encoding="utf-8")
    )
    return template.substitute(
        title=_text(f"{report.model}, T = {result.n_steps}, {result.arithmetic}"),
        subtitle=_text(
            f"{profile.host.cpu}, {result.threads} thread{'' if result.threads == 1 else 's'},"
            f" {len(profile.round_ms)} rounds of {result.n_samples} samples"
        ),
        throttled=(
            '<div class="card throttled">This run was slowed down:'
            f" {_text('; '.join(profile.throttling))}</div>"
            if profile.throttling
            else ""
        ),
        numbers="".join(
            f"<div><b>{_text(value)}</b><span>{_text(what)}</span></div>" for value, what in numbers
        ),
        data=_script(_data(report)),
        plotly=get_plotlyjs(),
    )


def _text(text: str) -> str:
    return html.escape(printable(text))


def _script(data: dict) -> str:
    """JSON that cannot end the script element around it."""
    return (
        json.dumps(data, allow_nan=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _data(report: Report) -> dict:
    profile = report.profile
    bars = [
        {
            "name": layer.name,
            "ms": layer.time_ms,
            "share": f"{layer.time_ms / profile.total_ms:.0%}",
            "outside": False,
            "hover": (
                f"{html.escape(layer.projection)}<br>{layer.time_ms:.4f} ms<br>{layer.sops:,.0f} SOPs"
                + (f"<br>{layer.of_ceiling:.0%} of the ceiling" if layer.of_ceiling else "")
            ),
        }
        for layer in profile.layers
    ]
    outside = profile.outside_ms
    bars.append(
        {
            "name": "outside layers",
            "ms": outside,
            "share": f"{outside / profile.total_ms:.0%}",
            "outside": True,
            "hover": f"{outside:.4f} ms",
        }
    )
    hints = Table(report.tables()[-1].columns, report.tables()[-1].rows) if report.hints else Table((), ())
    return {
        "bars": bars,
        "table": _table(report.layer_table("run")),
        "hints": _table(hints),
        "facts": [list(fact) for fact in report.summary()],
        "n_steps": profile.result.n_steps,
        "sweep": [asdict(entry) for entry in report.sweep],
        "seen": [asdict(seen) for seen in report.seen or ()],
    }


def _table(table: Table) -> dict:
    cells = table.cells(grouped=True)
    foot = cells.pop() if table.total else None
    keys = [
        [
            float(value) if column.spec and value is not None else -1.0 if column.spec else str(value)
            for column, value in zip(table.columns, row)
        ]
        for row in table.rows
    ]
    return {
        "head": [
            {
                "title": column.title,
                "text": not column.spec,
                "wrap": i > 0 and not column.spec and len(table.columns) < 6,
            }
            for i, column in enumerate(table.columns)
        ],
        "rows": [{"cells": row, "keys": key} for row, key in zip(cells, keys)],
        "foot": foot,
    }
