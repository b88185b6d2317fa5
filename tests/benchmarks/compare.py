"""evsnn beside onnxruntime and SpikingJelly: same networks, same weights, one core, one image, one run.

::

    python tests/benchmarks/compare.py [--networks vgg16,...] [--steps 8,16,32] [--engines evsnn-float32,...]
                                       [--rounds N] [--core N] [--cache DIR] [--markdown] [--json FILE]

Engines run in processes of their own on one core and take turns: A B C A B C. A turn is one untimed
inference and then timed ones; a ratio is the median over rounds of the quotient of two turns' medians in one
round, so that a machine that drifts drifts for both. Ratios are of CPU time: with one thread that is wall
time on an idle core, and stays right when something else takes the core. Nothing here is asserted: see
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import networks
import numpy as np
import peers
from workers import Worker, WorkerError, pin_threads

SCHEMA_VERSION = 1
TURN_MS, MOST_A_TURN = 60.0, 50  # a turn repeats quick engines until it is about this long
BUSY = 1.05  # wall time over CPU time above which something else had the core
MIB = 1 << 20


def cpu_model() -> str:
    """The CPU's name, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = [[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]
    first = dict(reversed(fields))
    name = first.get("model name") or first.get("Model") or platform.machine()
    numbers = [f"{key} {first[key]}" for key in ("cpu family", "model") if key in first]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def versions() -> dict[str, str]:
    """Versions of Python, evsnn and of what it is compared with."""
    import evsnn

    found = {"python": platform.python_version(), "evsnn": evsnn.__version__}
    for package in peers.PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def compare(network: str, n_steps: int, engines: Sequence[str], cache: Path, rounds: int, core: int) -> dict:
    """Time `engines` in turns on one network.

    Returns
    -------
    dict
        ``network``, ``n_steps``, and ``engines``: name to wall and CPU medians, ratios to evsnn, peak memory,
        equality of spike counts, or to ``{"error": ...}``.
    """
    workers: dict[str, Worker] = {}
    entries: dict[str, dict] = {}
    try:
        for name in engines:
            try:
                workers[name] = Worker(name, network, cache, n_steps, core)
            except WorkerError as error:
                entries[name] = {"error": str(error)}
        counts = {}
        for name, worker in workers.items():
            wall, _ = worker.turn(2)
            counts[name] = int(np.clip(np.ceil(TURN_MS / wall.min()), 2, MOST_A_TURN))
        turns: dict[str, list] = {name: [] for name in workers}
        for done in range(rounds):
            for name, worker in workers.items():
                turns[name].append(worker.turn(counts[name]))
            _progress(f"{network} T={n_steps}: round {done + 1} of {rounds}")
        reports = {name: worker.report() for name, worker in workers.items()}
        medians = {name: np.array([np.median(cpu) for _, cpu in turns[name]]) for name in workers}
        for name, report in reports.items():
            wall, cpu = (np.concatenate(column) for column in zip(*turns[name]))
            entries[name] = {
                "median_ms": float(np.median(wall)),
                "p10_ms": float(np.percentile(wall, 10)),
                "p90_ms": float(np.percentile(wall, 90)),
                "min_ms": float(wall.min()),
                "cpu_median_ms": float(np.median(cpu)),
                "inferences": len(wall),
                "first_result_ms": workers[name].start_up_ms,
                "peak_bytes": report["peak_bytes"],
                "prediction": int(report["outputs"].argmax()),
                **report["facts"],
                "ratio_to": {
                    own: float(np.median(medians[name] / medians[own]))
                    for own in peers.DEFAULT[:2]
                    if own in medians
                },
            }
        _compare_counts(reports, entries)
    finally:
        for worker in workers.values():
            worker.close()
    return {"network": network, "n_steps": n_steps, "engines": {name: entries[name] for name in engines}}


def _compare_counts(reports: dict[str, dict], entries: dict[str, dict]) -> None:
    """Set against evsnn's float32 spike counts those of every library that computes the same numbers."""
    own = reports.get("evsnn-float32", {}).get("spike_counts")
    if own is None:
        return
    for name, report in reports.items():
        counts = report["spike_counts"]
        if counts is None or name.startswith("evsnn"):
            continue
        differ = [
            int((np.ravel(a) != np.ravel(b)).sum()) if a.size == b.size else a.size
            for a, b in zip(own, counts)
        ]
        entries[name]["neurons"] = int(sum(a.size for a in own))
        entries[name]["neurons_that_differ"] = differ if len(own) == len(counts) else [a.size for a in own]


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


def lines(comparison: dict) -> list[str]:
    """A comparison as a table for people."""
    engines = comparison["engines"]
    sops = next((e["sops"] for e in engines.values() if "sops" in e), None)
    title = f"{comparison['network']}, T = {comparison['n_steps']}"
    if sops is not None:
        rates = {
            name: f"{engines[name]['mean_rate']:.1%}"
            for name in peers.DEFAULT[:2]
            if "mean_rate" in engines.get(name, {})
        }
        title += f": {sops / 1e6:.1f} M SOPs a sample, mean rate {' / '.join(rates.values())}"
    rows = [
        (
            "engine",
            "median ms",
            "p10",
            "p90",
            "CPU ms",
            "/ float32",
            "/ int8",
            "GSOP/s",
            "peak MiB",
            "spike counts",
        )
    ]
    for name, entry in engines.items():
        if "error" in entry:
            rows.append((name, entry["error"], *[""] * 8))
            continue
        ratios = [
            f"{entry['ratio_to'][own]:.2f}" if own in entry["ratio_to"] else "" for own in peers.DEFAULT[:2]
        ]
        speed = f"{entry['sops'] / entry['median_ms'] / 1e6:.1f}" if entry.get("sops") else ""
        differ = entry.get("neurons_that_differ")
        same = (
            ""
            if differ is None
            else "equal"
            if not any(differ)
            else f"{sum(differ)} of {entry['neurons']} neurons differ"
        )
        rows.append(
            (
                name,
                _ms(entry["median_ms"]),
                _ms(entry["p10_ms"]),
                _ms(entry["p90_ms"]),
                _ms(entry["cpu_median_ms"]),
                *ratios,
                speed,
                f"{entry['peak_bytes'] / MIB:.0f}",
                same,
            )
        )
    widths = [max(len(row[i]) for row in rows if row[2]) for i in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    out = ["", title]
    for row in rows:
        cells = (
            row[:2]
            if not row[2]
            else [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:9], widths[1:9])),
                row[9],
            ]
        )
        out.append("  ".join(cells).rstrip())
    busy = [
        name for name, e in engines.items() if "error" not in e and e["median_ms"] > BUSY * e["cpu_median_ms"]
    ]
    if busy:
        out.append(
            f"note: the core was shared while {', '.join(busy)} ran (wall time well above CPU time): trust"
            " the ratios, not the milliseconds"
        )
    return out


def markdown(comparisons: Sequence[dict]) -> list[str]:
    """The table of docs/benchmarks.md: CPU milliseconds at each number of steps, then ratios to evsnn's."""
    columns = [
        [c["engines"] for c in comparisons if c["network"] == name]
        for name in dict.fromkeys(c["network"] for c in comparisons)
    ]
    out = [
        "| | " + " | ".join(dict.fromkeys(c["network"] for c in comparisons)) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    ratios = []
    for engine in comparisons[0]["engines"]:
        rows = [[engines[engine] for engines in column] for column in columns]
        if any("error" in entry for row in rows for entry in row):
            continue
        if engine not in peers.SPIKING:  # the same at every number of steps
            cells = [_ms(float(np.median([entry["cpu_median_ms"] for entry in row]))) for row in rows]
        else:
            cells = [" / ".join(_ms(entry["cpu_median_ms"]) for entry in row) for row in rows]
        out.append(f"| {engine} | " + " | ".join(cells) + " |")
        for own in rows[0][0]["ratio_to"]:
            if not engine.startswith("evsnn"):
                cells = [
                    " / ".join(
                        (
                            f"{entry['ratio_to'][own]:.2g}"
                            if entry["ratio_to"][own] < 10
                            else f"{entry['ratio_to'][own]:.0f}"
                        )
                        for entry in row
                    )
                    for row in rows
                ]
                ratios.append(f"| {engine} : {own} | " + " | ".join(cells) + " |")
    return out + sorted(ratios, key=lambda line: line.split(" : ")[1].split(" ")[0])


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def choice(of: Sequence[str]):
    """Parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in of]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}: choose from {', '.join(of)}")
        return names

    return parse


def positive(text: str) -> int:
    """Parser of a positive integer."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _steps(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description="evsnn beside onnxruntime and spiking libraries: one core, one image, one run."
    )
    parser.add_argument(
        "--networks",
        type=choice(networks.ALL),
        default=list(networks.NAMES),
        metavar="NAMES",
        help=f"of {', '.join(networks.ALL)}; default: {', '.join(networks.NAMES)}",
    )
    parser.add_argument("--steps", type=_steps, default=[8, 16, 32], metavar="T[,T2,...]")
    parser.add_argument(
        "--engines",
        type=choice(peers.ALL),
        default=list(peers.DEFAULT),
        metavar="NAMES",
        help=f"of {', '.join(peers.ALL)}",
    )
    parser.add_argument(
        "--rounds", type=positive, default=15, metavar="N", help="turns of each engine (default: 15)"
    )
    parser.add_argument(
        "--core",
        type=int,
        default=cores[-1],
        choices=cores,
        help="the core all engines share (default: the last)",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where built networks lie (default: EVSNN_BENCHMARK_CACHE, else .cache beside this file)",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the table of docs/benchmarks.md at the end"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything measured to a file as well")
    options = parser.parse_args(arguments)
    cache = networks.cache_directory(options.cache)
    pin_threads()
    for name in options.networks:
        networks.build(name, cache)
    _warm(options.engines, options.networks[0], cache, options.core)
    found = {
        "schema_version": SCHEMA_VERSION,
        "cpu": cpu_model(),
        "core": options.core,
        "system": platform.platform(),
        "versions": versions(),
        "rounds": options.rounds,
        "batch": 1,
        "threads": 1,
        "comparisons": [],
    }
    print(f"{found['cpu']}, core {options.core}, one thread, batch 1, {options.rounds} rounds")
    print(", ".join(f"{package} {version}" for package, version in found["versions"].items()))
    print("'/ float32' and '/ int8': CPU time over evsnn's in the same round; above 1, evsnn is faster")
    for name in options.networks:
        for n_steps in options.steps:
            comparison = compare(name, n_steps, options.engines, cache, options.rounds, options.core)
            found["comparisons"].append(comparison)
            _progress("")
            print("\n".join(lines(comparison)), flush=True)
    if options.markdown:
        print("", *markdown(found["comparisons"]), sep="\n")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0


def _warm(engines: Sequence[str], network: str, cache: Path, core: int) -> None:
    """Have kernels compiled and cached, so that no measured process holds a compiler's memory."""
    for name in engines:
        if name.startswith("evsnn"):
            try:
                Worker(name, network, cache, 8, core).close()
            except WorkerError:
                continue  # it says so in its own row


if __name__ == "__main__":
    raise SystemExit(main())
