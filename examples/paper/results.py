"""The committed results: one JSON a system, merged from what training and runs left in their folders.

``{"system", "sources": {activation: {...}}, "runs": {method: {by: {"device", "rows": [...]}}}}``: a source is
the record that train.py wrote, with `largest_activations`, `macs` and `n_neurons` from evaluate.py; rows are
those of records.py without their predictions, and where an engine's row has a dense one beside it,
`engine_dense_agreement`: the share of equal predictions. Rows belong to the weights whose `weights_sha256`
the source has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.paper.records import AVERAGE, METHODS, SYSTEMS, key_of, replace_file

__all__ = ["FOLDER", "System", "agreement", "load_all", "merge"]

FOLDER = Path(__file__).parent / "results"
ACTIVATIONS = ("regular", "threshold")
MAKERS = ("engine", "dense")


@dataclass(frozen=True, eq=False)
class System:
    """One system, as measured.

    Parameters
    ----------
    name : str
    sources : mapping of str to mapping
        By activation; those that were trained.
    runs : mapping of str to mapping of str to mapping
        Method -> "engine" or "dense" -> {"device", "rows"}.
    """

    name: str
    sources: Mapping[str, Mapping]
    runs: Mapping[str, Mapping[str, Mapping]]

    @property
    def title(self) -> str:
        network, _, data = self.name.rpartition("_")
        return (
            f"{ {'cifarnet': 'CIFARNet', 'vgg16': 'VGG-16', 'resnet20': 'ResNet-20'}[network] },"
            f" {data.upper().replace('CIFAR', 'CIFAR-')}"
        )

    def row(self, method: str, by: str, n_steps: int | str) -> Mapping | None:
        """What was measured, or None."""
        rows = self.runs.get(method, {}).get(by, {}).get("rows", [])
        return next((row for row in rows if row["T"] == n_steps), None)

    def fullest(self, method: str, n_steps: int | str) -> Mapping | None:
        """The row of most images; the engine's, where both have as many."""
        found = [row for by in MAKERS if (row := self.row(method, by, n_steps))]
        return max(found, key=lambda row: row["n_samples"], default=None)

    def steps(self, methods: Iterable[str], makers: Sequence[str] = MAKERS) -> list[int | str]:
        """Every T of some methods, `AVERAGE` last."""
        found = {
            row["T"]
            for method in methods
            for by in makers
            for row in self.runs.get(method, {}).get(by, {}).get("rows", [])
        }
        return sorted(found, key=lambda T: (T == AVERAGE, T))

    def ann_accuracy(self, activation: str, n_samples: int) -> float | None:
        """A source ANN's accuracy on the first images, if anything that was measured tells it."""
        for method, how in METHODS.items():
            for by in MAKERS if how.activation == activation else ():
                for row in self.runs.get(method, {}).get(by, {}).get("rows", []):
                    if row["n_samples"] == n_samples:
                        return row["ann_accuracy"]
        source = self.sources.get(activation, {})
        return source.get("accuracy") if source.get("n_test") == n_samples else None


def load_all(folder: Path = FOLDER) -> list[System]:
    """The systems that have results, in the paper's order."""
    stored = (json.loads(path.read_text()) for name in SYSTEMS if (path := folder / f"{name}.json").exists())
    return [System(entry["system"], entry["sources"], entry["runs"]) for entry in stored]


def merge(folders: Sequence[Path], target: Path = FOLDER) -> list[str]:
    """Put what lies in `folders` into the results. Gives the names of what was read.

    What the folders do not hold stays: other methods, and other T of a method if the folders hold the
    training record of the same weights. Where they hold that of other weights, everything that was measured
    of the weights before is dropped.
    """
    read = []
    for system in SYSTEMS:
        path = target / f"{system}.json"
        entry = (
            json.loads(path.read_text()) if path.exists() else {"system": system, "sources": {}, "runs": {}}
        )
        before, same = len(read), {}
        for activation in ACTIVATIONS:
            trained = found(folders, f"{system}_{activation}.json")
            known = entry["sources"].get(activation, {}).get("weights_sha256")
            weights = trained and json.loads(trained.read_text()).get("weights_sha256")
            if trained and weights != known:
                forget(entry, activation)
            same[activation] = weights is not None and weights == known
            for part in trained, found(folders, f"{system}_{activation}_ann.json"):
                if part:
                    read.append(part.name)
                    described = json.loads(part.read_text())
                    source = entry["sources"].setdefault(activation, {})
                    source |= {
                        (
                            "accuracy_by_evsnn" if key == "accuracy" and part.stem.endswith("_ann") else key
                        ): value
                        for key, value in described.items()
                    }
        for method, how in METHODS.items():
            for by in MAKERS:
                if part := found(folders, f"{system}_{method}_{by}.json"):
                    read.append(part.name)
                    makers = entry["runs"].setdefault(method, {})
                    makers[by] = joined(
                        makers.get(by, {}) if same[how.activation] else {}, json.loads(part.read_text())
                    )
            compare(
                entry["runs"].get(method, {}),
                *(found(folders, f"{system}_{method}_{by}.npz") for by in MAKERS),
            )
        if len(read) > before:
            target.mkdir(exist_ok=True)
            replace_file(path, f"{json.dumps(entry, indent=1)}\n".encode())
    return read


def forget(entry: dict, activation: str) -> None:
    """Drop a source ANN and what was measured of it."""
    entry["sources"].pop(activation, None)
    for method, how in METHODS.items():
        if how.activation == activation:
            entry["runs"].pop(method, None)


def joined(before: Mapping, record: Mapping) -> dict:
    """A record's rows, and those before of other T: of the same network by the same method."""
    new = {row["T"] for row in record["rows"]}
    rows = record["rows"] + [row for row in before.get("rows", []) if row["T"] not in new]
    devices = [device for each in (before, record) for device in each.get("device", "").split("; ") if device]
    return {**before, "device": "; ".join(dict.fromkeys(devices)), "rows": rows}


def found(folders: Sequence[Path], name: str) -> Path | None:
    """The file in the first folder that has it."""
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def compare(records: Mapping[str, dict], engine: Path | None, dense: Path | None) -> None:
    """Add to the engine's rows how many predictions are those of the dense simulation."""
    if not (engine and dense and set(MAKERS) <= set(records)):
        return
    with np.load(engine) as ours, np.load(dense) as theirs:
        for T, share in agreement(ours, theirs):
            if T == "ann":
                records["engine"]["ann_agreement"] = share
            for row in records["engine"]["rows"]:
                if row["T"] == T:
                    row["engine_dense_agreement"] = share


def agreement(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> Iterator[tuple[int | str, float]]:
    """(T, share of equal predictions) for each T that both have, on the images that both have seen.

    The entry "ann" is that of the ANNs.
    """
    for name in sorted(set(ours) & set(theirs) - {"times"}):
        a, b = ours[name], theirs[name]
        n = min(a.shape[-1], b.shape[-1])
        if name == key_of(AVERAGE):
            _, rows, columns = np.intersect1d(ours["times"], theirs["times"], return_indices=True)
            a, b = a[rows], b[columns]
        T = name if name == "ann" else AVERAGE if name == key_of(AVERAGE) else int(name[1:])
        yield T, float((a[..., :n] == b[..., :n]).mean())
