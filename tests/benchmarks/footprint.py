"""Memory of one process that classifies one image: what `evsnn.run` announced, what it took, what others
take.

::

    python tests/benchmarks/footprint.py [--networks vgg16,...] [--steps 16] [--engines spikingjelly,...]
                                         [--core N] [--cache DIR] [--json FILE]

evsnn's process is ``python -m evsnn.run NETWORK.h5``; "announced" is the total it says on stderr before it
allocates anything. Peaks are the kernel's. Kernels are compiled before, in a process that is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import networks
import peers
from compare import MIB, choice, cpu_model, positive
from workers import Worker, WorkerError, pin_threads

ARITHMETICS = ("float32", "int8")


def of_command(network: str, n_steps: int, arithmetic: str, cache: Path) -> tuple[int, int]:
    """Announced and peak bytes of ``python -m evsnn.run`` on one sample.

    Raises
    ------
    RuntimeError
        If the command fails; the message is what it said.
    """
    command = [
        sys.executable,
        "-m",
        "evsnn.run",
        str(networks.path(cache, network, ".h5")),
        "--steps",
        str(n_steps),
        "--arithmetic",
        arithmetic,
        "--threads",
        "1",
        "--limit",
        "1",
        "--json",
    ]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as talk:
        process = subprocess.Popen(command, stdout=out, stderr=talk)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        talk.seek(0)
        if process.returncode:
            raise RuntimeError(talk.read().strip())
        return int(json.load(out)["memory_bytes"]), 1024 * usage.ru_maxrss


def main(arguments: Sequence[str] | None = None) -> int:
    cores = sorted(os.sched_getaffinity(0))
    others = [name for name in peers.ALL if not name.startswith("evsnn")]
    parser = argparse.ArgumentParser(description="Peak memory of one process that classifies one image.")
    parser.add_argument(
        "--networks",
        type=choice(networks.ALL),
        default=list(networks.NAMES),
        metavar="NAMES",
        help=f"of {', '.join(networks.ALL)}; default: {', '.join(networks.NAMES)}",
    )
    parser.add_argument("--steps", type=positive, default=16, metavar="T")
    parser.add_argument(
        "--engines",
        type=choice(others),
        default=["onnxruntime-fp32", "spikingjelly"],
        metavar="NAMES",
        help=f"beside evsnn, of {', '.join(others)}",
    )
    parser.add_argument("--core", type=int, default=cores[-1], choices=cores, help="default: the last")
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where built networks lie (default: EVSNN_BENCHMARK_CACHE, else .cache beside this file)",
    )
    parser.add_argument("--json", metavar="FILE", help="write everything measured to a file as well")
    options = parser.parse_args(arguments)
    cache = networks.cache_directory(options.cache)
    pin_threads()
    os.sched_setaffinity(0, {options.core})
    found = {"cpu": cpu_model(), "n_steps": options.steps, "networks": {}}
    row = "{:<10} {:<27} {:>14} {:>10} {:>17}".format
    print(row("network", "process", "announced MiB", "peak MiB", "announced / peak"))
    for name in options.networks:
        networks.build(name, cache)
        entries = found["networks"][name] = {}
        for arithmetic in ARITHMETICS:
            of_command(name, options.steps, arithmetic, cache)
            announced, peak = of_command(name, options.steps, arithmetic, cache)
            entries[f"evsnn-{arithmetic}"] = {"announced_bytes": announced, "peak_bytes": peak}
            print(
                row(
                    name,
                    f"evsnn.run, {arithmetic}",
                    f"{announced / MIB:.0f}",
                    f"{peak / MIB:.0f}",
                    f"{announced / peak:.2f}",
                ),
                flush=True,
            )
        for engine in options.engines:
            try:
                worker = Worker(engine, name, cache, options.steps, options.core)
            except WorkerError as error:
                print(row(name, engine, "", "", ""), error)
                continue
            peak = worker.report()["peak_bytes"]
            worker.close()
            entries[engine] = {"peak_bytes": peak}
            print(row(name, engine, "", f"{peak / MIB:.0f}", "").rstrip(), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
