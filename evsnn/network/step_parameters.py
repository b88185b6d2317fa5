"""What differs with the number of steps: thresholds, first membranes and biases of single layers.

A network that is converted for few steps needs other thresholds than one for many steps. Its weights stay:
what differs is a `StepParameters` per layer, for one T.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import NetworkError
from .layers import IF, Layer, Shape, checked_bias

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["STEP_FIELDS", "ReadOnly", "StepParameters", "with_step_parameters"]

STEP_FIELDS: Mapping[str, tuple[str, ...]] = {
    "conv2d": ("bias",),
    "linear": ("bias",),
    "if": ("v_threshold", "v_init", "negative_threshold", "warm_up_steps", "levels"),
}
"""Fields of a `StepParameters` that each kind of layer takes."""


_Key = TypeVar("_Key")
_Value = TypeVar("_Value", covariant=True)


class ReadOnly(Mapping[_Key, _Value]):
    """A mapping that stays as it was made, and can be pickled."""

    def __init__(self, items: Mapping[_Key, _Value]):
        self._items = dict(items)

    def __getitem__(self, key: _Key) -> _Value:
        return self._items[key]

    def __iter__(self) -> Iterator[_Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


@dataclass(frozen=True, eq=False)
class StepParameters:
    """Parameters that stand in for a layer's own in runs of one number of steps.

    A field that is None leaves the layer's own. The others are checked when a `Network` is made with them.

    Parameters
    ----------
    v_threshold, v_init : float, (channels,) or (2, channels) float32, optional
        Of an `IF`: its threshold (above 0) and its membrane before the first step; (2, channels) for pairs.
    bias : (n_out,) float32, optional
        Of a `Conv2d` or `Linear`.
    negative_threshold : float in [0, 65536], optional
        Of an `IF`.
    warm_up_steps : int in [0, 65536], optional
        Of an `IF`.
    levels : int in [1, 255], optional
        Of an `IF`, for graded spikes.

    Examples
    --------
    >>> few = net.replace(step_parameters={4: {"a": evsnn.StepParameters(v_threshold=0.8, v_init=0.1)}})
    >>> few.at(4).by_name["a"].v_threshold
    array(0.8, dtype=float32)
    """

    v_threshold: np.ndarray | None = None
    v_init: np.ndarray | None = None
    bias: np.ndarray | None = None
    negative_threshold: float | None = None
    warm_up_steps: int | None = None
    levels: int | None = None

    if TYPE_CHECKING:  # as for layers: `fitted` brings what is given into the fields' types

        def __init__(
            self,
            v_threshold: ArrayLike | None = None,
            v_init: ArrayLike | None = None,
            bias: ArrayLike | None = None,
            negative_threshold: float | None = None,
            warm_up_steps: int | None = None,
            levels: int | None = None,
        ) -> None: ...

    @property
    def given(self) -> dict[str, object]:
        """The fields that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def fitted(self, layer: Layer, shape: Shape) -> StepParameters:
        """The same in the form that a layer takes: read-only float32 arrays.

        The layer's own arrays are not read, so that the cost depends on the given fields alone.

        Parameters
        ----------
        layer : Layer
            The layer that takes them.
        shape : tuple of int
            Of its output.

        Returns
        -------
        StepParameters

        Raises
        ------
        NetworkError
            If the layer has no such field, or a value does not fit.
        """
        given = self.given
        for name in given:
            if name not in STEP_FIELDS.get(layer.kind, ()):
                kinds = " or ".join(kind for kind, names in STEP_FIELDS.items() if name in names)
                raise NetworkError(
                    f"{name} does not belong to this kind of layer",
                    where=layer._where,
                    got=layer.kind,
                    expected=kinds,
                )
        if isinstance(layer, IF):
            neurons = IF(
                name=layer.name, negative_slope=None if layer.negative_slope is None else np.ones(())
            )
            neurons._set(**given)
            neurons._check()
            neurons.output_shape([shape])
            return StepParameters(**{name: getattr(neurons, name) for name in given})
        return StepParameters(bias=checked_bias(self.bias, shape[0], layer._where))


def with_step_parameters(layer: Layer, step_parameters: StepParameters) -> Layer:
    """The layer with its fitted step parameters applied; the arrays that stay are shared."""
    changed = copy.copy(layer)
    changed._set(**step_parameters.given)
    return changed
