"""The public names as a type checker sees them: what users write passes ``mypy --strict``."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import evsnn
from evsnn.network import layers

ROOT = Path(__file__).resolve().parents[2]
RIGHT = """\
import numpy as np

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout

w = np.ones((4, 2, 3, 3))
layers = [
    Input((2, 8, 8), "poisson", name="x"),
    Conv2d(w, padding=1),
    evsnn.IF(1.0),
    AvgPool2d(2),
    evsnn.Conv2d(np.ones((4, 4, 1, 1), np.float32), np.zeros(4), stride=(1, 1), padding=(1, 1), name="c"),
    IF(np.ones(4), v_init=0.5, negative_threshold=0.25, inputs="c"),
    MaxPool2d(2, stride=2, padding=0),
    Flatten(),
    Linear([[1.0] * 36, [0.5] * 36], bias=[0.0, 1.0]),
    Readout(name="out"),
]
network: Network = Network(layers, n_steps=8, input_range=(0, 1), classes=["a", "b"])
few = network.replace(step_parameters={4: {"if1": evsnn.StepParameters(v_threshold=0.8)}})
simulator = evsnn.Simulator(few, threads=1)
total: int = sum(simulator.memory_for(2).values())
result: evsnn.Result = evsnn.simulate(network, np.zeros((3, 2, 8, 8)), n_steps=4, record=("spikes",))
outputs: np.ndarray = result.outputs
kernel: tuple[int, int] = MaxPool2d(2).kernel
mean = float(IF(1.0).v_threshold.mean())
converted: Network = evsnn.convert("model.onnx", w, n_steps=32)
evsnn.save("weights.h5", evsnn.load("weights.h5"))
"""
WRONG = """\
import evsnn

evsnn.IF(leak="high")
evsnn.Conv2d([[1.0]], padding="same")
evsnn.Linear()
evsnn.simulate("net", [])
evsnn.MaxPool2d(2).kernel.shape
"""


def checked(text: str, folder: Path) -> list[str]:
    """The lines of a file that mypy complains of."""
    pytest.importorskip("mypy")
    (folder / "user.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent",
         "--cache-dir", str(folder / "cache"), "user.py"],
        cwd=folder, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


@pytest.mark.slow
def test_what_users_write_has_no_type_errors(tmp_path):
    assert not checked(RIGHT, tmp_path)


@pytest.mark.slow
def test_what_is_wrong_is_found(tmp_path):
    found = {int(line.split(":")[1]) for line in checked(WRONG, tmp_path)}
    assert found == {3, 4, 5, 6, 7}


def test_type_checkers_see_every_public_name():
    source = inspect.getsource(evsnn)
    assert all(f"import {name} as {name}\n" in source for name in evsnn.__all__ if name != "__version__")


@pytest.mark.parametrize("kind", [*layers.KINDS.values(), layers.Layer, evsnn.StepParameters])
def test_type_checkers_see_the_fields_that_there_are(kind):
    """What stands below TYPE_CHECKING has the parameters that the dataclass makes, in their order."""
    own = inspect.getsource(kind).split("        def __init__(\n")[1].split(") -> None")[0]
    seen = [
        line.split(":")[0].strip() for line in own.splitlines() if line.strip() not in ("self,", "*,", "")
    ]
    assert seen == list(inspect.signature(kind).parameters)
