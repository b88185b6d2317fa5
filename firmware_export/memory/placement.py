"""The arena: where each buffer lies, and how large all of them are together.

Buffers whose lives do not meet share bytes. Large ones are placed first, each at the lowest offset that is
free for its whole life.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ALIGNMENT", "Buffer", "Placed", "place"]

ALIGNMENT = 4


@dataclass(frozen=True)
class Buffer:
    """Some bytes, and when they are needed.

    Parameters
    ----------
    name : str
    n_bytes : int
    life : (first, last)
        Places in the schedule, both included.
    """

    name: str
    n_bytes: int
    life: tuple[int, int]

    def meets(self, other: Buffer) -> bool:
        """Whether both are needed at the same time."""
        return self.life[0] <= other.life[1] and other.life[0] <= self.life[1]


@dataclass(frozen=True)
class Placed:
    """Where buffers lie.

    Parameters
    ----------
    buffers : tuple of Buffer
    offsets : tuple of int
        In bytes, one per buffer.
    n_bytes : int
        Of all of them.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    n_bytes: int


def place(buffers: Sequence[Buffer]) -> Placed:
    """Offsets for buffers, multiples of `ALIGNMENT`."""
    taken: dict[int, tuple[int, int]] = {}
    for i in sorted(range(len(buffers)), key=lambda i: (-buffers[i].n_bytes, i)):
        size = -(-buffers[i].n_bytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        for low, high in sorted(span for j, span in taken.items() if buffers[j].meets(buffers[i])):
            if low >= offset + size:
                break
            offset = max(offset, high)
        taken[i] = offset, offset + size
    return Placed(
        tuple(buffers),
        tuple(taken[i][0] for i in range(len(buffers))),
        max((high for _, high in taken.values()), default=0),
    )
