"""``python -m firmware_export WEIGHTS.h5 -o DIR``: C headers that run a network on a microcontroller, bit for
bit as in Python.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during the imports below
    from evsnn.interrupts import end_quietly

    end_quietly()

import argparse
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from evsnn import __version__
from evsnn.output import console

__all__ = ["main"]

SCHEMA_VERSION = 1
_EPILOG = """\
cores for --report: {}
QEMU counts instructions, not cycles, and emulated is what these figures are; simavr counts cycles of an AVR
"""


def _bytes(text: str) -> int:
    """The type of an option that is a size: 20000, 64K, 1M."""
    match = re.fullmatch(r"([0-9]{1,9})([KkMm]?)", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(
            f"got {text[:40]!r}, expected a number of bytes such as 2048, 20K or 1M"
        )
    return int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2].upper()]


def _some_of(known: Sequence[str]):
    """The type of an option that names some of what is known, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"got {unknown[0][:40]!r}, expected some of {', '.join(known)}")
        return names

    return parse


def parser() -> console.Parser:
    """The command line."""
    from .bundles import BUNDLES
    from .checks.machines import MACHINES

    p = console.Parser(
        prog="python -m firmware_export",
        description="Write a network as C headers for a microcontroller.",
        epilog=_EPILOG.format(", ".join(MACHINES)),
    )
    p.add_argument("weights", metavar="WEIGHTS.h5")
    p.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="the folder to write to; it is made if need be"
    )
    p.add_argument(
        "--name", help="prefix of all C symbols, and the header's name (default: made of the file's name)"
    )
    p.add_argument(
        "--steps", metavar="T", type=console.steps, help="number of time steps (default: the network's own)"
    )
    p.add_argument(
        "--order",
        choices=("layer", "step"),
        help=(
            "all steps layer by layer, or step by step for event streams and early exit (default: step for an"
            " input of events)"
        ),
    )
    p.add_argument(
        "--compact",
        action="store_true",
        help=(
            "1 byte per weight, not 2, in layers with 32-bit membranes: less flash, slower (taken by itself"
            " if --flash asks for it)"
        ),
    )
    p.add_argument("--single-file", action="store_true", help="put the runtime into the header")
    p.add_argument(
        "--bundle",
        metavar="B[,B2,...]",
        type=_some_of(tuple(BUNDLES)),
        default=(),
        help=f"a library for {', '.join(BUNDLES)} as well",
    )
    p.add_argument(
        "--ram", metavar="BYTES", type=_bytes, help="refuse a network whose context is larger (20K, 1M)"
    )
    p.add_argument(
        "--flash", metavar="BYTES", type=_bytes, help="refuse a network whose constants are larger"
    )
    p.add_argument(
        "--self-test",
        metavar="N",
        type=console.integer(1, 1000),
        default=0,
        help="put N stored samples into the header, behind a macro",
    )
    p.add_argument(
        "--check",
        action="store_true",
        help=(
            "compile with this computer's compiler, run the stored samples (else noise) and compare with"
            " Python"
        ),
    )
    p.add_argument(
        "--report",
        metavar="CORE[,...]",
        type=_some_of(tuple(MACHINES)),
        default=(),
        help="flash, RAM, stack and instructions on cores that are emulated here",
    )
    p.add_argument(
        "--samples",
        metavar="N",
        type=console.integer(1, 10_000),
        default=10,
        help="samples for --check and --report (default: 10)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument("--version", action="version", version=f"evsnn {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return console.run(lambda words: _run(parser(), words), argv)


def _run(p: console.Parser, words: Sequence[str]) -> int:
    options = p.parse_args(words)
    if options.steps and len(options.steps) > 1:
        p.error("argument --steps: expected one number of steps")
    from evsnn.circuit.quantized import integer_bytes
    from evsnn.files.weights import load
    from evsnn.output.memory import announce_early

    from .bundles import bundle
    from .export import Settings, export_files, export_network

    network = load(options.weights, before=partial(announce_early, "network"))
    announce_early("integers", integer_bytes(network))
    settings = Settings(
        name=options.name,
        source=options.weights,
        n_steps=options.steps[0] if options.steps else None,
        order=options.order,
        compact=options.compact,
        single_file=options.single_file,
        ram_bytes=options.ram,
        flash_bytes=options.flash,
        n_vectors=options.self_test,
    )
    export = export_network(network, settings, before=partial(announce_early, "text of the header"))
    found: dict = {"check": None, "report": []}
    work = None
    if options.check or options.report:
        from .checks.check import HOST, inputs_for, run_on
        from .checks.report import on_cores, weight_additions

        inputs, own = inputs_for(export.program.network, options.samples)
        what = f"{len(inputs)} {'stored samples' if own else 'samples of seeded noise'}"
        if options.check:
            run_on(HOST(), export, inputs)
            found["check"] = {"input": what, "equal": True}
            console.print_message(f"checked on this computer: {what}, every output as in Python")
        if options.report:
            work = weight_additions(export.program.network, inputs)
            found["report"] = on_cores(export, inputs, options.report, console.print_message)
    files = export_files(export, settings)
    for name in options.bundle:
        files |= bundle(name, export, settings)
    from .files import write_files

    found["removed"] = write_files(Path(options.output), files)
    if found["removed"]:
        console.print_message(f"removed, of an earlier export: {', '.join(found['removed'])}")
    _tell(options, export, sorted(files), found, work)
    return console.DONE


def _tell(
    options: argparse.Namespace, export, files: list[str], found: dict, work: tuple[float, float] | None
) -> None:
    from evsnn.output.table import Table, draw

    from .checks.report import code_table, codes_of, dense_macs, memory_of, memory_table, runs_table

    program = export.program
    facts = {
        "schema_version": SCHEMA_VERSION,
        "model": options.weights,
        "name": export.name,
        "order": "step" if program.by_step else "layer",
        "n_steps": program.n_steps,
        "arena_bytes": export.placed.n_bytes,
        "constant_bytes": export.constant_bytes,
        "dense_macs": dense_macs(program.network),
        "files": files,
        "memory": memory_of(export),
        "code": codes_of(export),
        "sops_per_sample": work and work[0],
        "weight_additions_per_sample": work and work[1],
    } | found
    if options.json:
        console.print_result(json.dumps(facts, allow_nan=False))
        return
    lines = [
        ("network", f"{options.weights} as {export.name}.h"),
        ("order", f"{facts['order']} by {facts['order']}, T = {program.n_steps}"),
        ("files", f"{options.output}: {', '.join(files)}"),
        (
            "RAM",
            f"{export.placed.n_bytes:,} bytes of arena, {export.context_bytes:,} of context on a 32-bit core",
        ),
        ("flash", f"{export.constant_bytes:,} bytes of constants; the code comes on top"),
        ("as an ANN", f"{facts['dense_macs']:,} multiply-adds"),
    ]
    if work:
        lines.append(
            (
                "a sample",
                (
                    f"{work[0]:,.0f} SOPs; {work[1]:,.0f} weight additions if each spike of a pooled position"
                    " counts"
                ),
            )
        )
    tables = [Table.of_facts(lines), memory_table(export), code_table(export)]
    if found["report"]:
        tables.append(runs_table(found["report"], work[1] if work else 0.0))
    console.print_result(draw(tables))


if __name__ == "__main__":
    sys.exit(main())
