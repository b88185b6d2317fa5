"""Spiking networks converted from trained ReLU networks, run event-driven on a CPU.

>>> import evsnn
>>> net = evsnn.convert("model.onnx", calibration=images, n_steps=32)
>>> evsnn.save("weights.h5", net)
>>> net = evsnn.load("weights.h5")
>>> result = evsnn.simulate(net, images, n_steps=32)
>>> result.predictions.shape == (len(images),)
True

``import evsnn`` imports no other package, not even numpy. A public name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from .circuit.quantized import QuantizedNetwork as QuantizedNetwork
    from .circuit.quantized import quantize as quantize
    from .conversion.conversion import convert as convert
    from .errors import EvsnnError as EvsnnError
    from .errors import InputError as InputError
    from .errors import MissingExtraError as MissingExtraError
    from .errors import ModelError as ModelError
    from .errors import NetworkError as NetworkError
    from .errors import RunError as RunError
    from .errors import WeightsError as WeightsError
    from .files.weights import load as load
    from .files.weights import save as save
    from .network.layers import IF as IF
    from .network.layers import Add as Add
    from .network.layers import AvgPool2d as AvgPool2d
    from .network.layers import Concat as Concat
    from .network.layers import Conv2d as Conv2d
    from .network.layers import Flatten as Flatten
    from .network.layers import Input as Input
    from .network.layers import Layer as Layer
    from .network.layers import Linear as Linear
    from .network.layers import MaxPool2d as MaxPool2d
    from .network.layers import Readout as Readout
    from .network.network import Network as Network
    from .network.network import Samples as Samples
    from .network.step_parameters import StepParameters as StepParameters
    from .result import LayerResult as LayerResult
    from .result import Result as Result
    from .simulation import Simulator as Simulator
    from .simulation import simulate as simulate
    from .state import State as State

_HOME = {
    "convert": ("convert",),
    "errors": (
        "EvsnnError",
        "InputError",
        "MissingExtraError",
        "ModelError",
        "NetworkError",
        "RunError",
        "WeightsError",
    ),
    "network.layers": (
        "Add",
        "AvgPool2d",
        "Concat",
        "Conv2d",
        "Flatten",
        "IF",
        "Input",
        "Layer",
        "Linear",
        "MaxPool2d",
        "Readout",
    ),
    "network.network": ("Network", "Samples"),
    "circuit.quantized": ("QuantizedNetwork", "quantize"),
    "result": ("LayerResult", "Result"),
    "simulation": ("Simulator", "simulate"),
    "network.step_parameters": ("StepParameters",),
    "state": ("State",),
    "files.weights": ("load", "save"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted([*_WHERE, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'evsnn' has no attribute {name!r}")
    module = importlib.import_module(f".{_WHERE[name]}", __name__)
    value = (
        module if name == _WHERE[name] else getattr(module, name)
    )  # a module that is called: docs/decisions/0007
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
