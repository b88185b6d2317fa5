"""The innermost loops of kernels on 64-bit ARM: vector registers, and none of them on the stack.

    python tests/arm/inner_loops.py [CPU]    every kernel of the demo model and of examples/models

Kernels are compiled for the core on any computer (`cross`). `tests/engine/test_inner_loops.py` holds the
adding loops to what `Loop` counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from evsnn.engine.kernels.code import Kernel  # noqa: E402

_LABEL = re.compile(r"(\.L\w+):$")
_JUMP = re.compile(r"(?:b|b\.\w+|cbn?z|tbn?z)\s.*?(\.L\w+)$")
_VECTOR = re.compile(r"\b[vqd]\d+\b")
_WHOLE_VECTOR = re.compile(r"\b(?:q\d+|v\d+\.(?:16b|8h|4s|2d))")
_ADDITION = re.compile(r"(?:fadd|add|saddw2?)\s+v")
_PRODUCT = re.compile(r"(?:fmul|mul)\s+v")
_FUSED = re.compile(r"(?:fml[as]|fn?madd|fn?msub)\s")


@dataclass(frozen=True)
class Loop:
    """A loop without loops in it.

    Parameters
    ----------
    label : str
    instructions : tuple of str
    """

    label: str
    instructions: tuple[str, ...]

    def count(self, pattern: re.Pattern) -> int:
        return sum(bool(pattern.match(line)) for line in self.instructions)

    @property
    def n_vector(self) -> int:
        """Instructions that touch a vector register."""
        return sum(bool(_VECTOR.search(line)) for line in self.instructions)

    @property
    def n_additions(self) -> int:
        """Additions of whole vectors: of 16 bytes."""
        return sum(bool(_ADDITION.match(line) and _WHOLE_VECTOR.search(line)) for line in self.instructions)

    @property
    def n_products(self) -> int:
        return self.count(_PRODUCT)

    @property
    def n_fused(self) -> int:
        """Products and sums in one rounding, which change the bits."""
        return self.count(_FUSED)

    @property
    def n_on_stack(self) -> int:
        """Loads and stores of vector registers on the stack."""
        return sum("[sp" in line and bool(_VECTOR.search(line)) for line in self.instructions)

    @property
    def n_ids(self) -> int:
        """Loads of 16 or 32 bits: ids and counts of events."""
        return self.count(re.compile(r"(?:ldrh|ldr)\s+w"))

    @property
    def adds_events(self) -> bool:
        return bool(self.n_ids and self.n_additions)


def loops(assembly: str) -> Iterator[Loop]:
    """The innermost loops of an assembly's first function."""
    lines = [line.partition("//")[0].strip() for line in assembly.partition(".Lfunc_end0")[0].splitlines()]
    lines = [line for line in lines if line and (_LABEL.match(line) or not line.startswith("."))]
    at = {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.match(line))}
    last: dict[int, int] = {}
    for i, line in enumerate(lines):
        if (match := _JUMP.match(line)) and at.get(match[1], i) < i:
            first = at[match[1]]
            last[first] = max(i, last.get(first, 0))
    for first, end in sorted(last.items()):
        if not any(first < other <= end for other in last):
            yield Loop(
                lines[first][:-1], tuple(line for line in lines[first : end + 1] if not _LABEL.match(line))
            )


def kernels_of_models() -> list[Kernel]:
    """What the demo model and the models of examples/models run, each kernel once."""
    import evsnn
    from evsnn.engine.workspace import needed
    from evsnn.files.demo import demo
    from evsnn.simulation import ARITHMETICS, Simulator

    networks = [demo(), *(evsnn.load(path) for path in sorted((ROOT / "examples" / "models").glob("*.h5")))]
    plans = (
        Simulator(network, arithmetic=arithmetic, threads=1, backend="numba").plan
        for network in networks
        for arithmetic in ARITHMETICS
    )
    return list(dict.fromkeys(kernel for plan in plans for kernel in needed(plan)))


def rows(made: dict) -> Iterable[tuple]:
    """A row for each loop with vector arithmetic."""
    for kernel, compiled in made.items():
        for loop in loops(compiled.assembly):
            if loop.n_vector > len(loop.instructions) // 3:
                what = "events" if loop.adds_events else ""
                yield (
                    kernel.key,
                    loop.label,
                    what,
                    len(loop.instructions),
                    loop.n_vector,
                    loop.n_additions,
                    loop.n_products,
                    loop.n_on_stack,
                )


def main(arguments: list[str]) -> int:
    """Print the loops of every kernel; exit status 1 if one that adds events uses the stack."""
    from cross import compile_for

    found = list(rows(compile_for(arguments[0] if arguments else "cortex-a72", kernels_of_models())))
    print("kernel", "loop", "adds", "instructions", "vector", "additions", "products", "on_stack", sep="\t")
    for row in found:
        print(*row, sep="\t")
    return int(any(what and on_stack for _, _, what, *_, on_stack in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
