"""Instructions that kernels take on emulated 64-bit ARM cores, per synaptic operation and per sample, beside
those recorded.

    python tests/arm/instructions.py ARMPY [CPU ...]
        compare with instructions.json: exit status 1 if one is 1 % off
    python tests/arm/instructions.py ARMPY [CPU ...] --write
        record them
    python tests/arm/instructions.py ARMPY [CPU ...] --caches
        print them with what a Cortex-A72's caches would miss
    ... --lanes=N
        print them for tiles of N output channels

ARMPY is what `setup.sh` makes. Kernels are compiled on this side, into EVSNN_CACHE_DIR. The emulator counts
every instruction of the kernels' machine code and of nothing else (`count.c`): one sample, the second that
runs. They are exact and repeat; they are instructions, never times.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

import evsnn  # noqa: E402
from evsnn.engine import plan  # noqa: E402
from evsnn.engine.runner import Kernels  # noqa: E402
from evsnn.engine.workspace import needed  # noqa: E402
from evsnn.files.demo import demo  # noqa: E402
from evsnn.simulation import ARITHMETICS, Simulator  # noqa: E402

RECORD = HERE / "instructions.json"
CPUS = ("cortex-a72", "cortex-a76")
TOLERANCE = 0.01
NETWORKS = (("demo", 16), ("resnet20_cifar10", 4), ("vgg16_cifar10", 4))
_GETPID, _MAGIC, _WATCH, _REPORT = 172, 0x65766E6E, 1, 2
_UNITS = {
    "integrate.integrate": "sop",
    "fire.fire": "neuron step",
    "current.current": "mac",
    "queue.build": "event",
    "queue.build_simple": "event",
}


class Counted:
    """The kernels of this process, counted by the emulator, which writes to a file."""

    def __init__(self, file: Path):
        from evsnn.engine.kernels import code

        self.file, self.read, self.fields = file, 0, {}
        self.call = ctypes.CDLL(None).syscall
        self.call.argtypes = [ctypes.c_long] * 6
        native = code.native

        def watched(object_file: bytes, symbol: str, kernel):
            import llvmlite.binding as llvm

            function = native(object_file, symbol, kernel)
            file = llvm.ObjectFileRef.from_data(object_file)
            size = max(
                section.size() for section in file.sections() if section.is_text()
            )  # the kernel's function is the first in it
            self.fields[kernel.key] = len(self.fields)
            self.call(
                _GETPID,
                _MAGIC,
                _WATCH,
                self.fields[kernel.key],
                code._ENGINES[-1].get_function_address(symbol),
                size,
            )
            return function

        code.native = watched

    def report(self) -> dict[str, dict[str, int]]:
        """What each kernel has executed since the last report."""
        for slot in self.fields.values():
            self.call(_GETPID, _MAGIC, _REPORT, slot, 0, 0)
        lines = self.file.read_text().splitlines()
        new, self.read = lines[self.read :], len(lines)
        names = {slot: key for key, slot in self.fields.items()}
        rows = ({name: int(number) for name, number in re.findall(r"(\w+) (\d+)", line)} for line in new)
        return {names[row.pop("slot")]: row for row in rows if row["instructions"]}


def simulators(lanes: int) -> Iterator[tuple[str, Simulator]]:
    """Each network, in both arithmetics, in tiles of its plan's own or of `lanes` output channels."""
    for name, steps in NETWORKS:
        network = demo() if name == "demo" else evsnn.load(ROOT / "examples" / "models" / f"{name}.h5")
        for arithmetic in ARITHMETICS:
            with mock.patch.dict(plan._LANES, dict.fromkeys(plan._LANES, (lanes,)) if lanes else {}):
                yield (
                    f"{name}, {arithmetic}",
                    Simulator(network, steps, arithmetic=arithmetic, threads=1, backend="numba"),
                )


def count(file: Path, lanes: int) -> dict:
    """In the emulated process: a row for each network and arithmetic."""
    counted, found = Counted(file), {}
    for name, simulator in simulators(lanes):
        images = simulator.network.samples.images[:1]
        simulator.run(images)
        counted.report()
        result = simulator.run(images)
        work = work_of(simulator, result)
        kernels = {}
        for key, row in counted.report().items():
            unit, n = work[key]
            kernels[key] = row | {"unit": unit, "n": n, "per_unit": round(row["instructions"] / max(n, 1), 4)}
        total, sops = sum(row["instructions"] for row in kernels.values()), int(result.sops_per_sample)
        found[name] = {
            "n_steps": simulator.n_steps,
            "sops": sops,
            "instructions": total,
            "per_sop": round(total / sops, 4),
            "kernels": dict(sorted(kernels.items())),
        }
    return {"versions": {name: version(name) for name in ("numba", "llvmlite")}, "networks": found}


def work_of(simulator: Simulator, result: evsnn.Result) -> dict[str, tuple[str, int]]:
    """For each kernel the unit of its work, and how much it did."""
    layers = {layer.name: layer for layer in result.layers}
    done: Counter = Counter()
    for p in simulator.plan.neurons:
        layer = layers[p.population.name]
        of_unit = {"sop": layer.sops, "mac": layer.macs, "event": layer.n_events}
        for kernel in {kernel for kernel in Kernels.needed(p) if kernel}:
            done[kernel.key] += of_unit.get(
                _UNITS.get(kernel.name, ""), p.positions * p.population.shape[0] * simulator.n_steps
            )
    return {
        kernel.key: (_UNITS.get(kernel.name, "neuron step"), int(done[kernel.key]))
        for kernel in needed(simulator.plan)
    }


def measured(armpy: Path, cpu: str, caches: bool, lanes: int) -> dict:
    """Count in a process of the emulated Python."""
    from cross import fill

    with tempfile.TemporaryDirectory() as folder:
        home, file = os.environ.get("EVSNN_CACHE_DIR", f"{folder}/code"), f"{folder}/counts"
        fill(
            armpy,
            cpu,
            Path(home),
            [kernel for _, simulator in simulators(lanes) for kernel in needed(simulator.plan)],
        )
        environment = os.environ | {
            "EVSNN_ARM_CPU": cpu,
            "EVSNN_CACHE_DIR": home,
            "EVSNN_ARM_PLUGIN": f"{armpy.with_name('count.so')},out={file},caches={int(caches)}",
        }
        done = subprocess.run(
            [armpy, __file__, "--count", file, str(lanes)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=3600,
        )
    if done.returncode:
        raise SystemExit(f"{cpu}: the emulated Python ended with status {done.returncode}")
    return json.loads(done.stdout)


def compare(cpu: str, now: dict, before: dict) -> int:
    """Say what is not as before; the number of such kernels."""
    off = 0
    for name, network in now.items():
        old = before.get(name, {"kernels": {}, "per_sop": None})
        print(
            f"{cpu}, {name}: {network['per_sop']} instructions per SOP, {network['instructions']} per sample"
            f" (recorded: {old['per_sop']} per SOP)"
        )
        for key in sorted(network["kernels"].keys() | old["kernels"].keys()):
            rows = [
                side.get(key, {"per_unit": None, "unit": ""}) for side in (network["kernels"], old["kernels"])
            ]
            values = [row["per_unit"] for row in rows]
            if None in values or abs(values[0] / values[1] - 1) > TOLERANCE:
                off += 1
                print(
                    f"  {key}: {values[0]} per {rows[0]['unit']}, recorded {values[1]}; if that is meant,"
                    " record it with --write"
                )
    return off


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--count"]:
        print(json.dumps(count(Path(arguments[1]), int(arguments[2]))))
        return 0
    words = [word for word in arguments if not word.startswith("-")]
    options = dict(word.partition("=")[::2] for word in arguments if word.startswith("-"))
    if not words or not options.keys() <= {"--write", "--caches", "--lanes"}:
        print(__doc__, file=sys.stderr)
        return 2
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    off = 0
    for cpu in words[1:] or CPUS:
        found = measured(Path(words[0]).resolve(), cpu, "--caches" in options, int(options.get("--lanes", 0)))
        if options.keys() & {"--caches", "--lanes"}:
            print(json.dumps({cpu: found["networks"]}, indent=1))
        elif "--write" in options:
            for network in found["networks"].values():
                for row in network["kernels"].values():
                    del row["l1_misses"], row["l2_misses"]
            record |= {"versions": found["versions"], cpu: found["networks"]}
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
        elif record.get("versions") != found["versions"]:
            print(
                f"{cpu}: instructions are not compared: recorded with {record.get('versions')}, counted with"
                f" {found['versions']}"
            )
        else:
            off += compare(cpu, found["networks"], record.get(cpu, {}))
    return int(off > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
