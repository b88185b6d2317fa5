"""``python -m evsnn.run warm``: compile what networks need and keep it, so that later starts need not."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import EvsnnError, RunError
from .output import console

__all__ = ["main"]

_EPILOG = """\
for images of systems, and for systems whose disk cannot be written to: EVSNN_CACHE_DIR names the folder
code is made for this CPU; another CPU compiles its own
"""


def parser(prog: str) -> console.Parser:
    """The command line."""
    p = console.Parser(
        prog=prog, description="Compile what networks need on this CPU, and keep it.", epilog=_EPILOG
    )
    p.add_argument(
        "weights", metavar="WEIGHTS.h5", nargs="*", help="networks (default: the packaged demo model)"
    )
    p.add_argument(
        "--steps",
        metavar="T[,T2,...]",
        type=console.steps,
        help="numbers of time steps beside those that the files name",
    )
    p.add_argument(
        "--arithmetic",
        choices=("float32", "int8", "both"),
        default="both",
        help="default: both, if a network can be brought to integers",
    )
    return p


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command and return its exit status."""
    options = parser(prog).parse_args(argv)
    from .engine.kernels.code import compiler_off, specialise, store
    from .engine.workspace import needed
    from .files.demo import demo
    from .files.weights import load
    from .simulation import ARITHMETICS, Simulator

    if compiler_off():
        raise RunError("numba's compiler is switched off", got="NUMBA_DISABLE_JIT", hint="unset it")
    if store().trouble:
        raise RunError(
            "compiled code cannot be kept",
            got=store().trouble,
            hint="name another folder with EVSNN_CACHE_DIR",
        )
    kernels: dict = {}
    for path in options.weights or [None]:
        network = demo() if path is None else load(path)
        for arithmetic in ARITHMETICS if options.arithmetic == "both" else (options.arithmetic,):
            for T in sorted({network.n_steps, *network.step_parameters, *(options.steps or ())}):
                try:
                    simulator = Simulator(  # of steps, because the engine computes no graded spikes yet
                        network, T, arithmetic=arithmetic, coding="steps", threads=1, backend="numba"
                    )
                except EvsnnError as error:
                    if options.arithmetic != "both" or arithmetic == "float32":
                        raise
                    console.print_message(f"{path or 'demo'}: left out in int8: {error}")
                    break
                kernels |= dict.fromkeys(needed(simulator.plan))
    with console.Progress("compiling") as progress:
        for done, kernel in enumerate(kernels):
            progress(done, len(kernels))
            specialise(kernel)
    kept = [kernel for kernel in kernels if store().path(kernel).exists()]
    if len(kept) < len(kernels):
        got = f"{len(kept)} of {len(kernels)} kernels in {store().folder}"
        raise RunError(
            "compiled code was not kept",
            got=got,
            hint="make room, or name another folder with EVSNN_CACHE_DIR",
        )
    console.print_result(f"{len(kernels)} kernels in {store().folder}")
    return console.DONE
