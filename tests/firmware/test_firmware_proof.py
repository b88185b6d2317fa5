"""Two membranes of 16 bits in a word of 32 (runtime/core.h, "pair"): that they never disturb each other,
for all values.

The exporter proves from weights, T and bias that v and v - V_th of every neuron fit 16 bits whenever they are
compared (`evsnn.circuit.quantized.membrane_bounds`). What the C does with them is proven here, with z3's bit
vectors: a sum of weights, a bias, the comparison and the reset of a word are those of two neurons by
themselves.
"""

from __future__ import annotations

import numpy as np
import pytest

z3 = pytest.importorskip("z3")

FIRED = 0x80008000


def proved(claim) -> None:
    solver = z3.Solver()
    solver.set("timeout", 120_000)
    solver.add(z3.Not(claim))
    assert solver.check() == z3.unsat, solver.model() if solver.check() == z3.sat else "no answer in time"


def word(low, high):
    """low + high * 2^16 modulo 2^32, of two signed numbers of 32 bits."""
    return low + (high << 16)


def fits(v):
    return z3.And(v >= -(2**15), v < 2**15)


def test_sums_of_words_are_words_of_sums():
    """Whatever the numbers, and however they wrap on their way. A count times a weight is such a sum of k
    terms.
    """
    v0, v1, w0, w1 = z3.BitVecs("v0 v1 w0 w1", 32)
    proved(word(v0, v1) + word(w0, w1) == word(v0 + w0, v1 + w1))
    for k in range(16):  # the counts of a field of 4 bits, as they are multiplied
        proved(word(v0, v1) + k * word(w0, w1) == word(v0 + k * w0, v1 + k * w1))


def test_comparison_and_reset_are_those_of_two_neurons():
    v0, v1, t0, t1 = z3.BitVecs("v0 v1 t0 t1", 32)
    given = z3.And(*(z3.And(t >= 1, t < 2**15, fits(v), fits(v - t)) for v, t in ((v0, t0), (v1, t1))))
    u = word(v0 - t0 + 2**15, v1 - t1 + 2**15)
    fired = u & FIRED
    spikes = z3.LShR(fired, 15)
    after = u - (word(t0, t1) & (fired - spikes))
    s0, s1 = (
        z3.If(v0 >= t0, z3.BitVecVal(1, 32), z3.BitVecVal(0, 32)),
        z3.If(v1 >= t1, z3.BitVecVal(1, 32), z3.BitVecVal(0, 32)),
    )
    proved(
        z3.Implies(
            given,
            z3.And(
                spikes == (s0 | s1 << 16), after == word(v0 - t0 * s0 - t0 + 2**15, v1 - t1 * s1 - t1 + 2**15)
            ),
        )
    )


def test_an_identity_shortcut_adds_its_amplitude_where_there_is_a_spike():
    a0, a1, s0, s1 = z3.BitVecs("a0 a1 s0 s1", 32)
    given = z3.And(*(z3.And(a >= 0, a < 2**15, z3.ULE(s, 1)) for a, s in ((a0, s0), (a1, s1))))
    proved(z3.Implies(given, word(a0, a1) & (s0 | s1 << 16) * 0xFFFF == word(a0 * s0, a1 * s1)))


def test_totals_of_two_neurons_stay_apart():
    n0, n1, s0, s1 = z3.BitVecs("n0 n1 s0 s1", 32)
    given = z3.And(*(z3.And(z3.ULT(n, 2**16 - 1), z3.ULE(s, 1)) for n, s in ((n0, s0), (n1, s1))))
    total = word(n0, n1) + (s0 | s1 << 16)
    proved(z3.Implies(given, z3.And(total & 0xFFFF == n0 + s0, z3.LShR(total, 16) == n1 + s1)))


def test_a_claim_that_is_false_is_not_proved():
    """Without the proof of the width the halves do disturb each other; the solver must say so."""
    v0, t0 = z3.BitVecs("v0 t0", 32)
    u = word(v0 - t0 + 2**15, z3.BitVecVal(0, 32))
    with pytest.raises(AssertionError):
        proved(z3.Implies(z3.And(t0 >= 1, t0 < 2**15), (u & 0x8000 != 0) == (v0 >= t0)))


def test_the_solver_and_numpy_agree_on_a_word():
    rng = np.random.default_rng(0)
    for low, high in rng.integers(-(2**15), 2**15, (20, 2)).tolist():
        assert (
            z3.simplify(word(z3.BitVecVal(low, 32), z3.BitVecVal(high, 32))).as_long()
            == (low + high * 2**16) % 2**32
        )
