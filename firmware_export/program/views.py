"""Views: the spikes of a population as those that read it see them, and as the C keeps them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evsnn.circuit.populations import Source
from evsnn.network.geometry import Window

__all__ = ["TILE", "Key", "Read", "View", "key_of"]

FIELD_BITS = (1, 4, 8, 16)
TILE = 8
"""Neurons of 32 bits that the runtime computes together."""


@dataclass(frozen=True)
class Key:
    """What a projection sees: which spikes of which population, through which pool.

    Parameters
    ----------
    population : int
    negative : bool
        Whether its negative spikes are meant.
    pool : Window, optional
    """

    population: int
    negative: bool = False
    pool: Window | None = None

    @property
    def spikes(self) -> Key:
        """The same without the pool."""
        return replace(self, pool=None)

    def seen_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of the view, of a population of shape (channels, height, width)."""
        return shape if self.pool is None else (shape[0], *self.pool.output_size(shape[1:]))


def key_of(source: Source) -> Key:
    """The key of what a projection or a max pool reads."""
    return Key(source.population, source.negative, source.pool)


@dataclass(frozen=True)
class Read:
    """A window that slides over a view.

    Parameters
    ----------
    key : Key
    window : Window
    """

    key: Key
    window: Window


@dataclass(frozen=True)
class View:
    """Counts of a population's spikes as they are kept: rows of [step][column][word].

    Parameters
    ----------
    key : Key
    shape : (channels, height, width)
    field_bits : int
        Bits of a count.
    left, right : int
        Columns of zeros beside the map.
    ring : int
        Rows kept.
    """

    key: Key
    shape: tuple[int, int, int]
    field_bits: int
    left: int = 0
    right: int = 0
    ring: int = 1

    @classmethod
    def of(cls, key: Key, shape: tuple[int, int, int], left: int, right: int) -> View:
        """A view whose fields hold the counts of its pool, with all of its rows.

        Parameters
        ----------
        key : Key
        shape : (channels, height, width)
        left, right : int
            Columns of zeros beside the map.
        """
        area = key.pool.area if key.pool else 1
        return cls(key, shape, next(bits for bits in FIELD_BITS if area < 1 << bits), left, right, shape[1])

    @property
    def word_bits(self) -> int:
        """8 or 16 if a position has no more bits, else 32."""
        return next((bits for bits in (8, 16) if self.shape[0] * self.field_bits <= bits), 32)

    @property
    def words(self) -> int:
        """Words of a position."""
        return -(-self.shape[0] * self.field_bits // self.word_bits)

    @property
    def position_bytes(self) -> int:
        """Bytes of a position."""
        return self.words * self.word_bits // 8

    @property
    def columns(self) -> int:
        """Columns that are kept: those of the map and of zeros."""
        return self.left + self.shape[2] + self.right

    @property
    def step_bytes(self) -> int:
        """Bytes of a step of a row."""
        return self.columns * self.position_bytes

    def row_bytes(self, n_steps: int) -> int:
        """Bytes of a row, filled up to whole words of 32 bits."""
        return -(-self.step_bytes * n_steps // 4) * 4

    def n_bytes(self, n_steps: int) -> int:
        """Bytes of all rows that are kept."""
        return self.ring * self.row_bytes(n_steps)
