"""What an export needs, buffer by buffer, and what it took on cores that are emulated here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np

from evsnn.circuit import reference
from evsnn.circuit.populations import MaxPool
from evsnn.circuit.quantized import QuantizedNetwork
from evsnn.output.table import Column, Table

from ..program.fast import code_of
from ..text.header import Export, products
from .check import run_on
from .harness import samples_of
from .machines import MACHINES

__all__ = [
    "code_table",
    "codes_of",
    "dense_macs",
    "memory_of",
    "memory_table",
    "on_cores",
    "runs_table",
    "weight_additions",
]

ANY_LAYER = {"population": "any layer", "maxpool": "max pool", "pool": "pool"}
"""The code of stages that have no fast code, by kind."""


def memory_of(export: Export) -> list[dict]:
    """The buffers of the arena: their bytes, where they lie, and from which row of the schedule to which they
    are needed.
    """
    placed, end = export.placed, len(export.program.schedule)
    names = [p.name for p in export.program.network.circuit.populations]
    rows = []
    for buffer, offset in sorted(
        zip(placed.buffers, placed.offsets), key=lambda pair: (pair[1], pair[0].life)
    ):
        if buffer.n_bytes:
            layer = next((names[int(word)] for word in buffer.name.split() if word.isdigit()), "input")
            rows.append(
                {
                    "buffer": buffer.name,
                    "layer": layer,
                    "offset": offset,
                    "bytes": buffer.n_bytes,
                    "from_row": buffer.life[0],
                    "to_row": min(buffer.life[1], end - 1),
                }
            )
    return rows


def codes_of(export: Export) -> list[dict]:
    """Which code computes each stage, and why it is not fast code."""
    program = export.program
    rows = []
    for stage in program.stages:
        code = code_of(stage, program)
        rows.append(
            {
                "layer": program.network.circuit.populations[stage.population].name
                if stage.population >= 0
                else "input",
                "code": code.kind or ANY_LAYER[stage.kind],
                "why": list(code.reasons),
            }
        )
    if program.counts:
        rows.append(
            {
                "layer": program.network.circuit.readout.name,
                "code": "totals",
                "why": [],
            }
        )
    return rows


def code_table(export: Export) -> Table:
    """The same for people."""
    rows = [(row["layer"], row["code"], "; ".join(row["why"])) for row in codes_of(export)]
    return Table((Column("layer"), Column("code"), Column("why no fast code")), tuple(rows))


def memory_table(export: Export) -> Table:
    """The same for people; buffers that are never needed together share bytes, so the total is less than the
    sum.
    """
    columns = (
        Column("buffer"),
        Column("layer"),
        Column("offset", "d"),
        Column("bytes", "d"),
        Column("from row", "d"),
        Column("to row", "d"),
    )
    return Table(
        columns,
        tuple(tuple(row.values()) for row in memory_of(export)),
        ("arena", "", None, export.placed.n_bytes, None, None),
    )


def weight_additions(network: QuantizedNetwork, inputs: np.ndarray) -> tuple[float, float]:
    """Mean work of a sample: SOPs, in which a pooled position counts once, and additions if each of its
    spikes counted.
    """
    traces = reference.run(network.circuit, inputs)
    spikes = 0.0
    for p in network.circuit.populations:
        for projection in () if isinstance(p, MaxPool) else p.projections:
            targets = projection.weight.shape[0] // projection.groups
            for source in projection.sources:
                train = traces[source.population].spikes if source.population >= 0 else inputs
                counts = sum(
                    reference.seen(source, train[:, t]).sum(axis=(0, 1)) for t in range(train.shape[1])
                )
                spikes += (
                    float(
                        (
                            counts
                            * np.outer(
                                *(projection.window.reach(axis, projection.size[axis]) for axis in (0, 1))
                            )
                        ).sum()
                    )
                    * targets
                )
    return sum(trace.sops for trace in traces) / len(inputs), spikes / len(inputs)


def dense_macs(network: QuantizedNetwork) -> int:
    """Multiply-adds of the model that was converted, or of the same layers as an ANN."""
    given = network.network.metadata.get("ann_macs")
    return given if isinstance(given, int) and given > 0 else sum(products(network))


def on_cores(
    export: Export,
    inputs: np.ndarray,
    cores: Sequence[str],
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict]:
    """Run on each core whose compiler and emulator are here, outputs compared with Python's; what was
    measured, or what is missing.
    """
    found: list[dict] = []
    for name in cores:
        machine = MACHINES[name]
        missing = machine.missing()
        if missing:
            found.append({"core": name, "missing": missing})
            continue
        progress(f"running {len(inputs)} samples on {name}")
        measured = run_on(machine, export, inputs)
        context = int(
            next(line.split()[1] for line in measured.text.splitlines() if line.startswith("bytes "))
        )
        samples = sum(values.nbytes for values in samples_of(export, inputs).values())
        found.append(
            {
                "core": name,
                "missing": None,
                "counts": machine.counts,
                "per_sample": fmean(measured.counted) if measured.counted else None,
                "flash_bytes": measured.flash_bytes - samples,
                "context_bytes": context,
                "stack_bytes": measured.stack_bytes,
                "loads": fmean(measured.loads) if measured.loads else None,
                "stores": fmean(measured.stores) if measured.stores else None,
            }
        )
    return found


def runs_table(rows: Sequence[dict], additions: float) -> Table:
    """The same for people."""
    columns = (
        Column("core"),
        Column("instructions/sample", ".0f"),
        Column("per weight addition", ".3f"),
        Column("flash bytes", "d"),
        Column("context bytes", "d"),
        Column("stack bytes", "d"),
        Column(""),
    )
    cells = []
    for row in rows:
        if row["missing"]:
            cells.append((row["core"], None, None, None, None, None, f"{row['missing']} is not installed"))
        else:
            per = row["per_sample"]
            cells.append(
                (
                    row["core"],
                    per,
                    per / additions if per and additions else None,
                    row["flash_bytes"],
                    row["context_bytes"],
                    row["stack_bytes"],
                    "cycles" if row["counts"] == "cycles" else "",
                )
            )
    return Table(columns, tuple(cells))
