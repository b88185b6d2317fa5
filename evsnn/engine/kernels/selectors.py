"""What a kernel is specialised for: its elements, lanes and events. Needs no numba."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ELEMENT_BYTES", "Events", "Vectors"]

ELEMENT_BYTES = {"float32": 4, "int8": 1, "int16": 2, "int32": 4}


@dataclass(frozen=True)
class Vectors:
    """What a kernel computes with.

    Parameters
    ----------
    membrane, accumulator, weight : {"float32", "int32", "int16", "int8"}
        The types of the membranes, of the sums within a step, and of the weights.
    lanes : {16, 32, 64, 128}
        Output channels in a tile.
    has_negative_spikes : bool
        Whether neurons may send negative spikes.
    has_warm_up : bool
        Whether neurons have a warm-up: they first may fire some steps after their first input.
    has_shifts : bool
        Whether the analog input's sum is shifted to the scale of the spikes beside it.
    """

    membrane: str
    accumulator: str
    weight: str
    lanes: int
    has_negative_spikes: bool = False
    has_warm_up: bool = False
    has_shifts: bool = False

    @property
    def in_membrane(self) -> bool:
        """Whether events are added directly to the membrane."""
        return self.accumulator == self.membrane

    @property
    def membrane_bytes(self) -> int:
        return self.lanes * ELEMENT_BYTES[self.membrane]

    @property
    def row_bytes(self) -> int:
        return self.lanes * ELEMENT_BYTES[self.weight]


@dataclass(frozen=True)
class Events:
    """How an event is stored: an id of `id_bits` bits and, if it is graded, a count of as many bits above it.

    Parameters
    ----------
    id_bits : {16, 32}
    count : {"", "integer", "float32"}
        "float32": the upper `id_bits` bits of the count as float32; 16 bits are exact up to 256.
    """

    id_bits: int
    count: str = ""

    @property
    def graded(self) -> bool:
        return bool(self.count)

    @property
    def bytes(self) -> int:
        return self.id_bits // 8 * (2 if self.graded else 1)
