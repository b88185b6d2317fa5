"""What `python -m evsnn.convert` says about a conversion: as tables, as JSON, and as metadata of the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ...output.table import Column, Table, draw
from ...text import as_count, as_shape
from .validation import Validation

if TYPE_CHECKING:
    from ..balance.selection import Choice
    from ..conversion import Conversion
    from .explanation import Explanation

__all__ = ["SCHEMA_VERSION", "Summary"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Summary:
    """A conversion, and what was measured of it.

    Parameters
    ----------
    model, output : str
        The model's file and the one to write, as they were named.
    calibration : str or None
        The calibration file; None in data-free mode.
    n_samples : int
        Calibration samples.
    storage : str
        How weights are stored.
    conversion : Conversion
    explanation : Explanation or None
        None if nothing was held out.
    validations : sequence of Validation
        One per T; none without a validation file.
    """

    model: str
    output: str
    calibration: str | None
    n_samples: int
    storage: str
    conversion: Conversion
    explanation: Explanation | None
    validations: Sequence[Validation]

    def metadata(self) -> dict[str, str | int | float]:
        """Provenance for the file: that of the conversion, and what was validated."""
        notes = dict(self.conversion.network.metadata)
        for row in self.validations:
            notes["validation_samples"] = row.n_samples
            if row.agreement is not None:
                notes[f"agreement_T{row.n_steps:02d}"] = row.agreement
            else:
                notes[f"error_T{row.n_steps:02d}"] = row.error
            notes[f"sops_per_sample_T{row.n_steps:02d}"] = round(row.sops_per_sample)
            if row.accuracy is not None and row.ann_accuracy is not None:
                notes["accuracy_ann"] = row.ann_accuracy
                notes[f"accuracy_T{row.n_steps:02d}"] = row.accuracy
        return notes

    def tables(self) -> list[Table]:
        """Layers and the sweep over T, what was tried, the validation, and the facts."""
        tables = self.explanation.tables() if self.explanation else []
        if any(len(choice.candidates) > 1 for choice in self.conversion.choices.values()):
            tables.append(self._tried())
        if self.validations:
            tables.append(self._validation())
        return [*tables, Table.of_facts(self.facts())]

    def text(self) -> str:
        """The tables, drawn."""
        return draw(self.tables())

    def facts(self) -> list[tuple[str, str]]:
        """What was converted, from what, and by which recipes."""
        conversion = self.conversion
        source = (
            "none: thresholds from limits and batch norms"
            if self.calibration is None
            else f"{as_count(self.n_samples, 'sample')}, {self.calibration}"
        )
        return [
            ("model", self.model),
            ("calibration", source),
            ("task", _task(conversion)),
            (
                "ANN",
                (
                    f"folded into evsnn's layers, its scores are the model's within {conversion.mismatch:.1e}"
                    " of the largest"
                ),
            ),
            *((("notes", "")[i > 0], note) for i, note in enumerate(conversion.notes)),
            *((f"T = {T}", f"{choice.recipe}; {choice.reason}") for T, choice in conversion.choices.items()),
            (
                "weights",
                (
                    f"{self.output}, shift {conversion.network.shift}, readout {conversion.network.readout},"
                    f" {self.storage}"
                ),
            ),
        ]

    def json(self) -> str:
        """One object; docs/output.md has its keys."""
        conversion, explained = (
            self.conversion,
            None if self.explanation is None else self.explanation.as_json(),
        )
        layers, sweep = (
            (None, None) if explained is None else (explained.pop("layers"), explained.pop("sweep"))
        )
        report = {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "output": self.output,
            "n_steps": conversion.network.n_steps,
            "shift": conversion.network.shift,
            "readout": conversion.network.readout,
            "task": conversion.network.task,
            "outputs": {
                layer.name: list(conversion.network.shapes[layer.name])
                for layer in conversion.network.outputs
            },
            "storage": self.storage,
            "calibration": self.calibration,
            "n_samples": self.n_samples,
            "choices": [_choice_entry(choice) for choice in conversion.choices.values()],
            "mismatch": conversion.mismatch,
            "notes": list(conversion.notes),
            "warnings": list(conversion.warnings),
            "held_out": explained,
            "layers": layers,
            "sweep": sweep,
            "validation": (
                [asdict(row) | {"loss_points": row.loss_points} for row in self.validations] or None
            ),
        }
        return json.dumps(report, allow_nan=False)

    def _tried(self) -> Table:
        columns = (
            Column("T", "d"),
            Column("recipe"),
            Column("agreement", ".4f"),
            Column("divergence", ".4f"),
            Column("rate", ".4f"),
            Column("SOPs/sample", ".0f"),
            Column(""),
        )
        rows = [
            (
                T,
                str(c.recipe),
                c.agreement,
                c.divergence,
                c.mean_rate,
                c.sops_per_sample,
                "taken" if c is choice.taken else "",
            )
            for T, choice in self.conversion.choices.items()
            for c in choice.candidates
        ]
        return Table(columns, tuple(rows))

    def _validation(self) -> Table:
        columns = (
            Column("T", "d"),
            Column("samples", "d"),
            Column("ANN", ".4f"),
            Column("SNN", ".4f"),
            Column("loss/points", ".2f"),
            Column("agreement", ".4f"),
            Column("rms error", ".4g"),
            Column("error %", ".2f"),
            Column("rate", ".4f"),
            Column("SOPs/sample", ".0f"),
            Column("ANN MACs", "d"),
        )
        rows = [
            (
                row.n_steps,
                row.n_samples,
                row.ann_accuracy,
                row.accuracy,
                row.loss_points,
                row.agreement,
                row.rms_error,
                100 * row.error,
                row.mean_rate,
                row.sops_per_sample,
                row.macs,
            )
            for row in self.validations
        ]
        return Table(columns, tuple(rows))


def _task(conversion: Conversion) -> str:
    """How the first output is read, and what the outputs are."""
    network = conversion.network
    shapes = [as_shape(network.shapes[layer.name]) for layer in network.outputs]
    several = ", ".join(f"{layer.name} {shape}" for layer, shape in zip(network.outputs, shapes))
    if network.task == "classify":
        one = "one score, class 1 where it is above 0" if network.output_shape == (1,) else ""
        read = f"classify: {one or f'scores of {network.n_classes} classes'}"
    else:
        values = "one value" if network.output_shape == (1,) else f"{shapes[0]} values"
        read = f"{network.task}: {values}" if len(shapes) == 1 else network.task
    return read + (f"; outputs {several}" if len(shapes) > 1 else "") + " (--task names another)"


def _choice_entry(choice: Choice) -> dict:
    """A choice in JSON."""
    candidates = [asdict(candidate) for candidate in choice.candidates]
    return {
        "n_steps": choice.n_steps,
        "recipe": asdict(choice.recipe),
        "reason": choice.reason,
        "candidates": candidates,
    }
