"""The house as a graph: which module imports which, and how large everything is.

`test_floors.py` holds the order of floors, `plan_of_the_house.py` prints numbers, `draw_the_house.py` draws
it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "evsnn": (
        ("errors", "digest", "interrupts", "limits", "text"),
        ("parallel",),
        ("network",),
        ("circuit",),
        ("files",),
        ("engine",),
        ("result", "state"),
        ("arguments", "tally"),
        ("simulation",),
        ("output",),
        ("startup",),
        ("session",),
        ("profiling",),
        ("conversion",),
        ("warm",),
        ("run", "inspect", "convert", "profile"),
        ("__main__",),
    ),
    "evsnn.network": (
        ("geometry", "reading"),
        ("layers",),
        ("step_parameters",),
        ("ranges",),
        ("network",),
        ("inventory",),
    ),
    "evsnn.circuit": (
        ("interval",),
        ("neuron",),
        ("populations",),
        ("build", "encoding", "reference"),
        ("quantized",),
    ),
    "evsnn.files": (
        ("atomic", "hdf5", "kinds", "regular", "targets"),
        ("gate",),
        ("schema",),
        ("storage",),
        ("weights",),
        ("demo", "arrayfile"),
        ("imagefile",),
        ("inputs",),
    ),
    "evsnn.files.hdf5": (("source",), ("messages",), ("indexes",), ("objects",), ("writer",)),
    "evsnn.engine": (
        ("kernels",),
        ("plan",),
        ("ceiling", "pack", "state"),
        ("runner",),
        ("pool_runner",),
        ("workspace",),
    ),
    "evsnn.engine.kernels": (
        ("layout", "selectors"),
        ("descriptors",),
        ("interpreted",),
        ("memory",),
        ("vector",),
        ("jit",),
        ("code",),
        ("ceiling", "current", "fire", "integrate", "maxpool", "queue"),
    ),
    "evsnn.output": (("console",), ("memory", "outputs", "table"), ("report",), ("plot",)),
    "evsnn.profiling": (
        ("host", "meterfile"),
        ("energy",),
        ("measure", "profile_files"),
        ("report",),
        ("page",),
    ),
    "evsnn.conversion": (("onnx",), ("lowering",), ("balance",), ("needs",), ("conversion",), ("report",)),
    "evsnn.conversion.onnx": (
        (
            "graph",
            "windows",
            "dense",
            "upgrade",
            "signals",
            "masks",
            "expansion",
            "quantised",
            "postprocessing",
        ),
        ("model_file", "admission", "operators"),
        ("boundary", "constants", "evaluate", "refusals", "macs"),
        ("importer",),
    ),
    "evsnn.conversion.lowering": (
        ("convolution",),
        ("expression",),
        ("value", "assembly"),
        ("ann", "scope", "phases", "borders"),
        ("sums",),
        ("linear",),
        ("elementwise_rules", "layout_rules", "pooling_rules", "pruning", "weighted_rules"),
        ("lowering",),
    ),
    "evsnn.conversion.balance": (
        ("calibration", "currents", "statistics"),
        ("thresholds", "correction", "targets"),
        ("options",),
        ("balance", "trial"),
        ("refit", "selection"),
    ),
    "evsnn.conversion.report": (
        ("comparison", "validation"),
        ("diagnosis", "sweep"),
        ("explanation",),
        ("picture", "summary"),
    ),
    "firmware_export": (
        ("program",),
        ("memory",),
        ("text",),
        ("export",),
        ("bundles", "files"),
        ("checks",),
        ("__main__",),
    ),
    "firmware_export.program": (
        ("views",),
        ("packing", "stages"),
        ("schedule",),
        ("program",),
        ("blank", "incoming"),
        ("fast",),
    ),
    "firmware_export.memory": (("placement",), ("arena",)),
    "firmware_export.text": (
        ("names", "runtime"),
        ("structs",),
        ("ctext",),
        ("tables",),
        ("any_layer", "outputs"),
        ("fast_layer",),
        ("header",),
    ),
    "firmware_export.checks": (("harness", "machines"), ("check",), ("report",)),
}
"""By package, its rooms from the ground up: a room may import those of lower floors, never one of its own
floor or above.
"""


@dataclass(frozen=True)
class Arrow:
    """An import: the module, what it imports, and the line."""

    source: str
    target: str
    line: int


def name_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    return {
        name_of(path): path
        for top in ("evsnn", "firmware_export")
        for path in sorted((ROOT / top).rglob("*.py"))
    }


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in modules().items()}


def hinted(tree: ast.Module) -> set[int]:
    """Nodes below ``if TYPE_CHECKING``: they are never run."""
    hints = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.If) and isinstance(n.test, ast.Name) and n.test.id == "TYPE_CHECKING"
    ]
    return {id(n) for hint in hints for n in ast.walk(hint)}


@cache
def arrows(hints: bool = False) -> tuple[Arrow, ...]:
    """All imports of our own modules, anywhere in a file; those for type hints alone only if asked for."""
    return tuple(arrow for name in modules() for arrow in _arrows(name, hints))


def _arrows(name: str, hints: bool) -> Iterator[Arrow]:
    tree, path = trees()[name], modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    skipped = set() if hints else hinted(tree)
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            targets = [
                f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules() else source
                for alias in node.names
            ]
        for target in dict.fromkeys(targets):
            if target in modules() and target not in ("evsnn", "firmware_export"):
                yield Arrow(name, target, node.lineno)


def rooms(arrow: Arrow) -> tuple[str, str, str] | None:
    """The package in which the two ends of an import first differ, and its two rooms there.

    None if they are in different packages of the top.
    """
    source, target = arrow.source.split("."), arrow.target.split(".")
    n = next((i for i, (a, b) in enumerate(zip(source, target)) if a != b), min(len(source), len(target)))
    if n == 0 or n in (len(source), len(target)):
        return None
    return ".".join(source[:n]), source[n], target[n]


def floor(package: str, room: str) -> int:
    return next(i for i, names in enumerate(FLOORS[package]) if room in names)
