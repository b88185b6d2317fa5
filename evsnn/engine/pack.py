"""A population's weights and parameters in the order in which kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..circuit.neuron import leak_shift
from ..circuit.populations import Projection
from .kernels.layout import PARAMETER_ROWS
from .plan import PopulationPlan, aligned

__all__ = ["Packed", "pack"]


@dataclass(frozen=True, eq=False)
class Packed:
    """A population's weights and parameters as kernels read them: bytes that start on a cache line.

    Parameters
    ----------
    weights : [tile][projection][ky][kx][channel][lane], and a row of zeros behind each tile
    channelwise : tuple of [tile][ky][kx][lane], membranes' element
    analog_projections : tuple of [tile][ky][kx][channel][lane]
    parameters : [tile][bias, threshold, v_init, leak, v_negative][lane], membranes' element
    analog_shifts : [tile][half a unit, right, left][lane], optional
    """

    weights: np.ndarray
    channelwise: tuple[np.ndarray, ...]
    analog_projections: tuple[np.ndarray, ...]
    parameters: np.ndarray
    analog_shifts: np.ndarray | None


def pack(p: PopulationPlan) -> Packed:
    """Lay out a population's weights for the kernels."""
    weight_type = np.dtype(p.weight_type)
    weights = (
        aligned(p.n_tiles * (p.tile_rows + 1) * p.lanes * weight_type.itemsize)
        .view(weight_type)
        .reshape(p.n_tiles, p.tile_rows + 1, p.lanes)
    )
    channelwise = tuple(_lanes_of(t.projection, p, np.dtype(p.membrane)) for t in p.channelwise)
    analog_projections = tuple(
        _lanes_of(d, p, weight_type, dense=True) for d in p.population.analog_projections
    )
    for tile in range(p.n_tiles):
        row = 0
        for gather in p.gathers:
            block = weights[tile, row : row + gather.rows].reshape(
                *gather.projection.kernel, gather.part_channels, p.lanes
            )
            first, last = gather.parts[tile if len(gather.parts) > 1 else 0]
            _fill(block, gather.projection, tile * p.lanes, int(first), int(last))
            row += gather.rows
    return Packed(weights, channelwise, analog_projections, _parameters(p), _analog_shifts(p))


def _fill(block: np.ndarray, projection: Projection, first_out: int, first_in: int, last_in: int) -> None:
    """Write a tile's effective weights to ``block`` (ky, kx, channel, lane); other groups stay 0."""
    n_out, n_in = projection.weight.shape[0] // projection.groups, projection.weight.shape[1]
    last_out = min(first_out + block.shape[3], projection.weight.shape[0])
    if projection.groups == 1:
        block[:, :, : last_in - first_in, : last_out - first_out] = projection.effective(
            slice(first_out, last_out)
        ).transpose(2, 3, 1, 0)
        return
    for group in range(first_out // n_out, (last_out - 1) // n_out + 1):
        low, high = max(first_out, group * n_out), min(last_out, (group + 1) * n_out)
        inputs = slice(group * n_in - first_in, (group + 1) * n_in - first_in)
        block[:, :, inputs, low - first_out : high - first_out] = projection.effective(
            slice(low, high)
        ).transpose(2, 3, 1, 0)


def _lanes_of(projection: Projection, p: PopulationPlan, dtype: np.dtype, dense: bool = False) -> np.ndarray:
    """Weights as (tile, ky, kx, lane), or as (tile, ky, kx, channel, lane) with the zeros of all groups."""
    channels = projection.shape[0] if dense else 1
    shape = (p.n_tiles, *projection.kernel, channels, p.lanes)
    block = aligned(int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
    for tile in range(p.n_tiles):
        if dense:
            _fill(block[tile], projection, tile * p.lanes, 0, channels)
        else:
            part = projection.effective(slice(tile * p.lanes, (tile + 1) * p.lanes))
            block[tile, ..., : part.shape[0]] = part.transpose(2, 3, 1, 0)
    return block


def _parameters(p: PopulationPlan) -> np.ndarray:
    """Bias, threshold, v_init, leak and v_negative of every lane. Lanes without a neuron never fire."""
    dtype = np.dtype(p.membrane)
    never, least = (
        (np.inf, -np.inf) if p.membrane == "float32" else (np.iinfo(dtype).max, np.iinfo(dtype).min)
    )
    out = (
        aligned(p.n_tiles * PARAMETER_ROWS * p.lanes * dtype.itemsize)
        .view(dtype)
        .reshape(p.n_tiles, PARAMETER_ROWS, p.lanes)
    )
    population, channels = p.population, p.population.shape[0]
    if p.membrane == "float32":
        leak = population.neuron.leak
    else:
        leak = (
            min(leak_shift(population.neuron.leak), 8 * dtype.itemsize - 1)
            if population.neuron.leak < 1
            else 0
        )  # a wider shift has no meaning
    threshold = never if population.neuron.v_threshold is None else population.neuron.v_threshold
    v_negative = (
        least if population.neuron.v_negative is None else np.maximum(population.neuron.v_negative, least)
    )  # no membrane is below the smallest value of its type
    for row, (values, rest) in enumerate(
        (
            (population.bias, 0),
            (threshold, never),
            (population.neuron.v_init, 0),
            (leak, 0),
            (v_negative, least),
        )
    ):
        flat = np.full(p.n_tiles * p.lanes, rest, dtype)
        flat[:channels] = values
        out[:, row] = flat.reshape(p.n_tiles, p.lanes)
    return out


def _analog_shifts(p: PopulationPlan) -> np.ndarray | None:
    """What is added to the analog input's sums, and the bits that they are then shifted right and left."""
    shift = p.population.analog_shift
    if shift is None:
        return None
    dtype, channels = np.dtype(p.membrane), p.population.shape[0]
    out = aligned(p.n_tiles * 3 * p.lanes * dtype.itemsize).view(dtype).reshape(p.n_tiles, 3, p.lanes)
    right = np.maximum(shift, 0)
    for row, values in enumerate(((1 << right) >> 1, right, np.maximum(-shift, 0))):
        flat = np.zeros(p.n_tiles * p.lanes, dtype)
        flat[:channels] = values
        out[:, row] = flat.reshape(p.n_tiles, p.lanes)
    return out
