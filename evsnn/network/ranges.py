"""What the sums of a network can reach: one whose numbers could leave float32's range is refused.

Beyond it a membrane would be infinite or NaN, and back ends would differ: one adds 0 x infinity where another
adds nothing. The bound is the largest magnitude that each layer sends, times that of the weights, times their
number, for as many steps as a run may have. So it holds for every run of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import NetworkError
from .layers import IF, Add, Conv2d, Input, Layer, Linear, Readout
from .step_parameters import StepParameters

__all__ = ["LARGEST", "largest_input"]

LARGEST = float(np.finfo(np.float32).max) / 2**18
"""The largest magnitude of a current, a bias, a threshold or a first membrane, about 1.3e33: 65,536 steps of
two of them, and one more, stay in float32.
"""


@dataclass(frozen=True)
class _Reach:
    """The largest magnitude of what a layer sends in a step: `fixed`, and `gain` times the input's."""

    fixed: float
    gain: float = 0.0


def largest_input(
    layers: Sequence[Layer], parameters: Iterable[Mapping[str, StepParameters]], given: float
) -> float:
    """The largest magnitude of a constant input with which all sums stay in float32's range.

    Parameters
    ----------
    layers : sequence of Layer
        Each behind those that it reads.
    parameters : iterable of mapping of str to StepParameters
        A network's, for each T and coding.
    given : float
        The largest magnitude that the input is said to have.

    Returns
    -------
    float
        At least `given`.

    Raises
    ------
    NetworkError
        If sums could leave the range with inputs of `given`; it names the layer and the quantity.
    """
    tables: dict[str, list[StepParameters]] = {layer.name: [] for layer in layers}
    for table in parameters:
        for name, own in table.items():
            tables[name].append(own)
    sends: dict[str, _Reach] = {}
    most = LARGEST
    for layer in layers:
        read, owns = [sends[name] for name in layer.inputs], tables[layer.name]
        widest = _Reach(max((r.fixed for r in read), default=0.0), max((r.gain for r in read), default=0.0))
        if isinstance(layer, Input):
            sends[layer.name] = _Reach(0.0, 1.0) if layer.encoding == "constant" else _Reach(1.0)
            continue
        if isinstance(layer, (Conv2d, Linear)):
            bias = _largest("bias", layer, owns)
            weight = layer.largest_weight
            _check(bias, "the bias", layer)
            _check(weight * (widest.fixed + widest.gain * given), "effective weights", layer)
            n_in = layer.weight[0].size
            sends[layer.name] = _Reach(n_in * weight * widest.fixed + bias, n_in * weight * widest.gain)
            continue
        if isinstance(layer, Add):
            sends[layer.name] = _Reach(sum(r.fixed for r in read), sum(r.gain for r in read))
            continue
        if isinstance(layer, (IF, Readout)):
            _check(widest.fixed + widest.gain * given, "the sum of a step", layer)
            if widest.gain:
                most = min(most, (LARGEST - widest.fixed) / widest.gain)
        if isinstance(layer, IF):
            threshold = _largest("v_threshold", layer, owns)
            _check(threshold, "v_threshold", layer)
            _check(_largest("v_init", layer, owns), "v_init", layer)
            slope = (
                1.0 if layer.negative_slope is None else max(1.0, float(np.abs(layer.negative_slope).max()))
            )
            _check(threshold * slope, "negative_slope times v_threshold", layer)
            widest = _Reach(threshold * slope)
        sends[layer.name] = widest
    return max(most, given)


def _largest(what: str, layer: Layer, tables: Sequence[StepParameters]) -> float:
    """The largest magnitude of a parameter, for all numbers of steps."""
    values = [getattr(one, what) for one in (layer, *tables)]
    return max((float(np.abs(value).max()) for value in values if value is not None), default=0.0)


def _check(value: float, what: str, layer: Layer) -> None:
    if not value <= LARGEST:
        raise NetworkError(
            f"{what} could leave float32's range",
            where=layer._where,
            got=f"up to {value:.3g}",
            expected=f"at most {LARGEST:.3g}",
            hint="scale weights, biases and thresholds down",
        )
