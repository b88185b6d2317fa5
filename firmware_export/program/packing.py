"""Tables in the order in which fast code walks them: pairs in words, tiles of channels."""

from __future__ import annotations

import numpy as np

from evsnn.circuit.populations import Projection

from .views import TILE, View

__all__ = ["channelwise_tiles", "pair_words", "pairs_of", "tile_pairs", "view_words"]


def tile_pairs(channels: int) -> int:
    """Pairs of a tile: 8, or 4 for a layer of at most 8 channels."""
    return 4 if channels <= 8 else 8


def pair_words(values: np.ndarray, row: int, fill: int = 0) -> np.ndarray:
    """Values of channels as words: tiles of `row` pairs, pair j of channels j and row + j.

    A word is low + high * 2^16 modulo 2^32, so that multiples of it add to both halves exactly.

    Parameters
    ----------
    values : (..., channels) int64
    row : int
    fill : int
        For lanes without a channel.

    Returns
    -------
    (..., tiles, row) uint32
    """
    channels = values.shape[-1]
    tiles = -(-channels // (2 * row))
    padded = np.full((*values.shape[:-1], tiles * 2 * row), fill, np.int64)
    padded[..., :channels] = values
    halves = padded.reshape(*values.shape[:-1], tiles, 2, row)
    return ((halves[..., 0, :] + halves[..., 1, :] * 2**16) % 2**32).astype(np.uint32)


def pairs_of(projection: Projection, row: int) -> np.ndarray:
    """Weights as [tile][ky][kx][channel][row] words."""
    return np.moveaxis(pair_words(projection.weight.astype(np.int64).transpose(2, 3, 1, 0), row), -2, 0)


def channelwise_tiles(projection: Projection) -> np.ndarray:
    """Weights of single channels as [ky][kx][channel], filled up to whole tiles."""
    weight = projection.weight[:, 0].astype(np.int64).transpose(1, 2, 0)
    return np.pad(weight, ((0, 0), (0, 0), (0, -weight.shape[2] % TILE)))


def view_words(counts: np.ndarray, view: View) -> np.ndarray:
    """Counts (..., channels) as the words of a position."""
    per_word = view.word_bits // view.field_bits
    padded = np.zeros((*counts.shape[:-1], view.words * per_word), np.int64)
    padded[..., : counts.shape[-1]] = counts
    shifts = view.word_bits - view.field_bits * (1 + np.arange(per_word))
    return (
        (padded.reshape(*counts.shape[:-1], view.words, per_word) << shifts)
        .sum(axis=-1)
        .astype({8: np.uint8, 16: np.uint16, 32: np.uint32}[view.word_bits])
    )
