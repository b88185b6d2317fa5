"""On 64-bit ARM the adding loops are NEON, with nothing on the stack and nothing fused; kernels are compiled
for the core on any computer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evsnn.engine.kernels.code import Kernel
from evsnn.engine.kernels.layout import UNROLL
from evsnn.engine.kernels.selectors import ELEMENT_BYTES, Events, Vectors

sys.path.insert(0, str(Path(__file__).parents[1] / "arm"))

from cross import available, compile_for
from inner_loops import loops

PLAIN, GRADED = Events(16), Events(16, "float32")
INTEGRATE = {
    "float32 of 16": (Vectors("float32", "float32", "float32", 16), PLAIN),
    "float32 of 64, negative spikes and a warm-up": (
        Vectors("float32", "float32", "float32", 64, True, True),
        PLAIN,
    ),
    "float32 of 32, graded": (Vectors("float32", "float32", "float32", 32), GRADED),
    "float32 of 64, graded": (Vectors("float32", "float32", "float32", 64), GRADED),
    "int16 of 128, signed": (Vectors("int16", "int16", "int8", 128, True), PLAIN),
    "int32 of 64": (Vectors("int32", "int16", "int8", 64), PLAIN),
    "int32 of 128": (Vectors("int32", "int16", "int8", 128), PLAIN),
}
FIRE = Kernel("fire.fire", (Vectors("float32", "float32", "float32", 16),), 5)
CURRENT = Kernel("current.current", (Vectors("float32", "float32", "float32", 64),), 5)
BUILD = Kernel("queue.build_simple", (PLAIN,), 1)
KERNELS = {name: Kernel("integrate.integrate", selectors, 6) for name, selectors in INTEGRATE.items()}

pytestmark = pytest.mark.skipif(not available(), reason="llvmlite does not know aarch64")


@pytest.fixture(scope="module")
def made():
    compiled = compile_for("cortex-a72", [*KERNELS.values(), FIRE, CURRENT, BUILD])
    return {kernel: list(loops(code.assembly)) for kernel, code in compiled.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", INTEGRATE)
def test_the_loops_that_add_events(made, name):
    vectors, events = INTEGRATE[name]
    one, many = sorted(
        (loop for loop in made[KERNELS[name]] if loop.adds_events), key=lambda loop: len(loop.instructions)
    )
    for loop, n_events in ((one, 1), (many, UNROLL)):
        registers = vectors.lanes * ELEMENT_BYTES[vectors.accumulator] // 16 * n_events
        assert loop.n_on_stack == 0, loop
        assert (
            loop.n_fused == 0
            and loop.n_additions == registers
            and loop.n_products == (registers if events.graded else 0)
        ), loop
        assert loop.n_ids == n_events * (2 if events.graded else 1)
        assert len(loop.instructions) <= registers * (3 if events.graded else 2) + 6 * n_events + 6, (
            "something else is in the loop"
        )


@pytest.mark.slow
def test_other_loops_are_vectors(made):
    """Steps of the first layer, its current, and the ids of a byte of a mask: registers do not suffice in the
    first for four positions.
    """
    (fire,) = (loop for loop in made[FIRE] if loop.n_additions)
    assert fire.n_fused == 0 and fire.n_vector > 0.9 * len(fire.instructions) and fire.n_additions >= 16
    (current,) = (loop for loop in made[CURRENT] if loop.n_products)
    assert (
        current.n_fused == 0 and current.n_products == current.n_additions == 16 and current.n_on_stack <= 2
    )
    assert any(loop.n_vector >= 5 and loop.n_on_stack == 0 for loop in made[BUILD])
