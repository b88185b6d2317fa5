"""Records of runs: what was measured of a system, by which method, and the predictions behind it.

A record is two files of one stem, ``<system>_<method>_<by>``, ``by`` being "engine" (evsnn) or "dense" (a
synchronous simulation): `.json` with a row for each T, `.npz` with the predicted class of each test image.
Both are replaced whole, the predictions first, so that a row is never there without them.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = [
    "AUTO_STEPS",
    "AVERAGE",
    "AVERAGE_SHIFT_STEPS",
    "METHODS",
    "SYSTEMS",
    "Method",
    "Record",
    "key_of",
    "replace_file",
    "replace_npz",
]

SYSTEMS = ("cifarnet_cifar10", "vgg16_cifar10", "resnet20_cifar10", "vgg16_cifar100", "resnet20_cifar100")
AVERAGE = "400-600"
"""The row that holds the mean accuracy at t = 400 to 600 of one run."""
AVERAGE_SHIFT_STEPS = 800
"""The paper's A.2: V_th/1600 a step in that run, the shift of T = 800."""
AUTO_STEPS = (4, 8, 16, 32)


@dataclass(frozen=True)
class Method:
    """A way from a source ANN to a spiking network.

    Parameters
    ----------
    activation : {"regular", "threshold"}
        Of the source ANN.
    threshold : str
        evsnn's rule, see `evsnn.conversion.balance.options.Options`.
    shift : {"bias", "none"}, optional
        None: what the rule brings.
    """

    activation: str
    threshold: str
    shift: str | None

    def network(self, system: str) -> str:
        """The name of the converted network's file; methods that differ in the shift alone share one."""
        return f"{system}_{self.activation}_{self.threshold.replace(':', '-')}.h5"


METHODS: Mapping[str, Method] = {
    "S": Method("regular", "max", "bias"),
    "T": Method("threshold", "max", "none"),
    "TS": Method("threshold", "max", "bias"),
    "RMP": Method("regular", "max", "none"),
    "percentile": Method("regular", "percentile:99.9", "none"),
    "auto": Method("threshold", "auto", None),
}


@dataclass
class Record:
    """One system by one method, as measured so far.

    Parameters
    ----------
    folder : Path
    system, method, by : str
    device : str
        What measured it; several, joined, where a record was continued on another machine.
    rows : list of dict
        "T" is a number of steps or `AVERAGE`; in the order in which they were measured.
    predictions : dict of str to array
        ``ann`` (n,), ``T16`` (n,), ...; ``T400-600`` (n_times, n) beside ``times`` (n_times,).
    """

    folder: Path
    system: str
    method: str
    by: str
    device: str
    rows: list[dict] = field(default_factory=list)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, system: str, method: str, by: str, device: str) -> Record:
        """The record in a folder, or a new one."""
        record = cls(folder, system, method, by, device)
        if record.path(".json").exists():
            stored = json.loads(record.path(".json").read_text())
            record.rows = stored["rows"]
            record.device = (
                stored["device"]
                if device in stored["device"].split("; ")
                else f"{stored['device']}; {device}"
            )
            with np.load(record.path(".npz")) as file:
                record.predictions = dict(file)
        return record

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.system}_{self.method}_{self.by}{suffix}"

    def has(self, n_steps: int | str) -> bool:
        return any(row["T"] == n_steps for row in self.rows)

    def add(self, row: dict, predictions: Mapping[str, np.ndarray]) -> None:
        """Keep a row and its predictions, on disk at once."""
        self.predictions |= predictions
        self.rows.append(row)
        replace_npz(self.path(".npz"), self.predictions)
        text = json.dumps(
            {
                "system": self.system,
                "method": self.method,
                "by": self.by,
                "device": self.device,
                "rows": self.rows,
            },
            indent=1,
        )
        replace_file(self.path(".json"), f"{text}\n".encode())


def key_of(n_steps: int | str) -> str:
    """The name of a row's predictions."""
    return f"T{n_steps}"


def replace_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, all or nothing."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    replace_file(path, content.getbuffer())


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file, all or nothing."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)
