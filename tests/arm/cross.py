"""Kernels compiled for aarch64 on any computer: by numba, which is told that it runs there.

numba has one code generator a process, so this is done in a process of its own. What comes out is what
numba makes on such a core, byte for byte: `suite.sh` compares it with what the emulated Python compiles.
"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from evsnn.engine.kernels.code import Kernel, Store  # noqa: E402

TRIPLE = "aarch64-unknown-linux-gnu"


@dataclass(frozen=True)
class Compiled:
    """A kernel for another CPU.

    Parameters
    ----------
    code : bytes
        An object file.
    symbol : str
    assembly : str
    """

    code: bytes
    symbol: str
    assembly: str


@functools.cache
def available() -> bool:
    """Whether llvmlite knows aarch64."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    try:
        llvm.Target.from_triple(TRIPLE)
    except RuntimeError:
        return False
    return True


def compile_for(cpu: str, kernels: Iterable[Kernel]) -> dict[Kernel, Compiled]:
    """Compile kernels for a core, e.g. "cortex-a72"."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")} | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path))
    }
    environment |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        [sys.executable, __file__],
        input=pickle.dumps(list(kernels)),
        env=environment,
        capture_output=True,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return {kernel: Compiled(*parts) for kernel, parts in pickle.loads(done.stdout).items()}


def fill(armpy: Path, cpu: str, home: Path, kernels: Iterable[Kernel]) -> int:
    """Compile what is missing where the emulated Python looks for its machine code; the number of kernels."""
    environment = {name: value for name, value in os.environ.items() if name != "EVSNN_ARM_PLUGIN"} | {
        "EVSNN_ARM_CPU": cpu,
        "PYTHONPATH": str(ROOT),
    }
    said = subprocess.run(
        [armpy, "-c", "from evsnn.engine.kernels.code import environment; print(environment(), end='')"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    store = Store(home, said.stdout)
    if store.trouble:
        raise RuntimeError(store.trouble)
    wanted = [kernel for kernel in dict.fromkeys(kernels) if store.load(kernel) is None]
    for kernel, compiled in compile_for(cpu, wanted).items():
        store.save(kernel, compiled.code, compiled.symbol)
    return len(wanted)


def section(code: bytes, name: str = ".text") -> bytes:
    """A section of an object file: its code names nothing, so that it can be compared."""
    import llvmlite.binding as llvm

    return next(
        bytes(part.data())
        for part in llvm.ObjectFileRef.from_data(code).sections()
        if part.name() == name.encode()
    )


def _pretend() -> None:
    """Let all that asks llvmlite where it runs hear aarch64; before numba is imported."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLE)
    llvm.get_process_triple = lambda: TRIPLE
    llvm.Target.from_default_triple = staticmethod(lambda: target)


def main() -> None:
    """Compile the pickled kernels of stdin, and write object, symbol and assembly of each to stdout."""
    kernels = pickle.loads(sys.stdin.buffer.read())
    _pretend()
    from evsnn.engine.kernels.jit import compiled

    made = {}
    for kernel in kernels:
        code, symbol, _ = compiled(kernel.name, kernel.selectors, kernel.n_arguments)
        module, _, function = kernel.name.partition(".")
        overloads = getattr(
            importlib.import_module(f"evsnn.engine.kernels.{module}"), function
        ).overloads.values()
        (library,) = (overload.library for overload in overloads if overload.fndesc.llvm_func_name == symbol)
        made[kernel] = code, symbol, library.get_asm_str()
    sys.stdout.buffer.write(pickle.dumps(made))


if __name__ == "__main__":
    sys.path[:] = [
        path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent.resolve()
    ]
    main()
