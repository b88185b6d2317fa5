"""A run by blocks of steps, carried on and reset, equals the run at once, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from generate import Seeded, made
from networks import IMAGES, every_path, small_network

import evsnn
from evsnn import IF, Conv2d, Flatten, Input, Linear, Network, Readout, RunError, Simulator
from evsnn.arguments import RECORDS
from evsnn.errors import InputError

BACKENDS = ("numba", "reference")


def cut(n_steps: int, seed: int) -> list[int]:
    """Blocks of random lengths that add up to `n_steps`."""
    rng, blocks = np.random.default_rng(seed), []
    while sum(blocks) < n_steps:
        blocks.append(int(rng.integers(1, n_steps - sum(blocks) + 1)))
    return blocks


def advanced(simulator, image, blocks, seed=0, index=0):
    """The results of the blocks of a run of one sample."""
    events = simulator.network.input.encoding == "events"
    state = simulator.start(None if events else image, seed=seed, index=index)
    results, done = [], 0
    for n_steps in blocks:
        given = {"events": image[done : done + n_steps]} if events else {"n_steps": n_steps}
        results.append(simulator.advance(state, **given, record=RECORDS))
        done += n_steps
        assert state.step == done
    return state, results


def assert_same_run(whole, parts, i=0):
    """Sample `i` of a run at once, and the blocks of it."""
    assert np.array_equal(parts[-1].outputs[0], whole.outputs[i])
    for j, layer in enumerate(whole.layers):
        rows = [part.layers[j] for part in parts]
        assert np.array_equal(np.concatenate([row.spikes[0] for row in rows]), layer.spikes[i]), layer.name
        assert np.array_equal(sum(row.spike_counts[0] for row in rows), layer.spike_counts[i]), layer.name
        if layer.v_mem is not None:
            assert np.array_equal(rows[-1].v_mem[0], layer.v_mem[i]), layer.name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("encoding", ["constant", "poisson", "events"])
def test_blocks_are_the_run(encoding, arithmetic, backend):
    network = small_network(33, encoding)
    images = np.random.default_rng(2).random((1, 8, 3, 9, 8)) < 0.3 if encoding == "events" else IMAGES[:1]
    simulator = Simulator(network, arithmetic=arithmetic, backend=backend, threads=1)
    whole = simulator.run(images, record=RECORDS, seed=5)
    for blocks in ([8], [1] * 8, [3, 5], [7, 1]):
        _, parts = advanced(simulator, images[0], blocks, seed=5)
        assert_same_run(whole, parts)
        sums = [
            sum(getattr(part.layers[j], what) for part in parts)
            for j in range(4)
            for what in ("sops", "n_events")
        ]
        assert sums == [getattr(layer, what) for layer in whole.layers for what in ("sops", "n_events")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_networks_in_random_blocks(seed):
    network, images = made(Seeded(1000 + seed), small=True, warm_ups=False)
    for arithmetic in ("float32", "int8"):
        for backend in BACKENDS:
            simulator = Simulator(network, arithmetic=arithmetic, backend=backend, threads=1)
            whole = simulator.run(images, record=RECORDS, seed=seed)
            _, parts = advanced(simulator, images[1], cut(network.n_steps, seed), seed, 1)
            assert_same_run(whole, parts, 1)


def test_states_of_several_samples_take_turns():
    simulator = Simulator(every_path(0.1, 0), 12, threads=1)
    images = np.random.default_rng(3).random((3, 2, 5, 4), dtype=np.float32)
    whole = simulator.run(images)
    states = [simulator.start(image) for image in images]
    for _ in range(4):
        results = [simulator.advance(state, 3) for state in states]
    assert np.array_equal(np.concatenate([r.outputs for r in results]), whole.outputs)
    again = simulator.run(images)
    assert np.array_equal(again.outputs, whole.outputs)


def test_a_state_goes_on_in_another_simulator_and_is_reset():
    network = small_network(17)
    one, other = (Simulator(network, threads=threads) for threads in (1, 2))
    state = one.start(IMAGES[0])
    one.advance(state, 3)
    result = other.advance(state)
    assert np.array_equal(result.outputs, one.run(IMAGES[:1]).outputs)
    assert np.array_equal(state.outputs, result.outputs[0]) and state.step == 8
    one.reset(state)
    assert state.step == 0 and state.outputs is None
    assert np.array_equal(one.advance(state).outputs, result.outputs)


def test_poisson_spikes_begin_again_with_a_reset():
    simulator = Simulator(small_network(17, "poisson"), threads=1)
    state = simulator.start(IMAGES[0], seed=3, index=2)
    first = simulator.advance(state).outputs
    simulator.reset(state)
    run = simulator.run(np.repeat(IMAGES[:1], 3, axis=0), seed=3, record_steps=[5])
    assert np.array_equal(simulator.advance(state, 5).outputs, run.outputs_at[5][2:])
    simulator.advance(state)
    assert np.array_equal(state.outputs, first[0])


def test_the_readout_of_spikes_is_carried_on():
    network = every_path(0.1, 0)
    layers = [*network.layers[:-1], IF(0.3, name="emits"), Readout()]
    network = Network(layers, n_steps=9, readout="spikes", input_range=(0, 1))
    image = np.random.default_rng(4).random((2, 5, 4), dtype=np.float32)
    for backend in BACKENDS:
        simulator = Simulator(network, backend=backend, threads=1)
        whole = simulator.run(image[None], record=RECORDS)
        assert_same_run(whole, advanced(simulator, image, [2, 4, 3])[1])


# What is refused


def test_a_state_of_another_network_t_or_arithmetic_is_refused():
    network = small_network(17)
    simulator = Simulator(network, 8, threads=1)
    state = simulator.start(IMAGES[0])
    others = (
        Simulator(small_network(18), 8, threads=1),
        Simulator(network, 9, threads=1),
        Simulator(network, 8, arithmetic="int8", threads=1),
        Simulator(network.replace(shift="none"), 8, threads=1),
        Simulator(network, 8, backend="reference"),
    )
    for other in others:
        for use in (other.advance, other.reset):
            with pytest.raises(
                RunError, match=r"state: the state belongs to another network.*got T = 8, steps, float32"
            ):
                use(state)
    assert simulator.advance(state).n_steps == 8


def endless(shift="none", **options) -> Network:
    layers = [Input((1, 3, 3)), Conv2d(np.full((2, 1, 2, 2), 0.3)), IF(1.0, **options), Flatten()]
    return Network([*layers, Linear(np.eye(2, 8)), Readout()], n_steps=4, shift=shift, input_range=(0, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_whose_parameters_do_not_depend_on_t_goes_on_without_end(backend):
    image = np.ones((1, 3, 3), np.float32)
    simulator = Simulator(endless(), 4, backend=backend)
    assert simulator.circuit.depends_on_steps == ()
    state = simulator.start(image)
    for _ in range(5):
        result = simulator.advance(state, 20)
    assert state.step == 100
    assert np.array_equal(result.outputs, evsnn.simulate(endless(), image, n_steps=100).outputs)


@pytest.mark.parametrize(
    "network, options, decided",
    [
        (endless("bias"), {}, "shift"),
        (endless("initial"), {"arithmetic": "int8"}, "integers"),
        (endless("initial", warm_up_steps=1), {}, "warm-up"),
        (
            endless().replace(step_parameters={4: {"if1": evsnn.StepParameters(v_init=0.5)}}),
            {},
            "step parameters",
        ),
    ],
)
def test_a_run_does_not_pass_the_steps_that_decided_something(network, options, decided):
    simulator = Simulator(network, 4, threads=1, **options)
    assert simulator.circuit.depends_on_steps == (decided,)
    state = simulator.start(np.ones((1, 3, 3), np.float32))
    with pytest.raises(
        RunError, match=f"would pass its last step, on which its {decided} depend: got step 5"
    ):
        simulator.advance(state, 5)
    simulator.advance(state)
    with pytest.raises(RunError, match=r"n_steps is out of range: got 0.*The run is over"):
        simulator.advance(state)


def test_a_shift_with_steps_of_its_own_does_not_depend_on_those_of_the_run():
    assert Simulator(endless("bias"), 4, shift_steps=16).circuit.depends_on_steps == ()


def test_a_warm_up_runs_all_its_steps_at_once():
    simulator = Simulator(every_path(0.1, 1), 6, threads=1)
    state = simulator.start(np.ones((2, 5, 4), np.float32))
    with pytest.raises(RunError, match="runs all its steps at once: got 3 steps, expected T = 6"):
        simulator.advance(state, 3)
    result = simulator.advance(state)
    assert np.array_equal(result.outputs, simulator.run(np.ones((1, 2, 5, 4))).outputs)


@pytest.mark.parametrize("n_steps", [0, -1, True, 1.5, "3"])
def test_blocks_that_cannot_be(n_steps):
    simulator = Simulator(small_network(17), threads=1)
    with pytest.raises(RunError, match="n_steps is out of range"):
        simulator.advance(simulator.start(IMAGES[0]), n_steps)


def test_samples_that_do_not_fit():
    simulator = Simulator(small_network(17), threads=1)
    with pytest.raises(InputError, match="a state holds one sample: got 2 images"):
        simulator.start(IMAGES[:2])
    with pytest.raises(InputError, match="expected an image"):
        simulator.start()
    with pytest.raises(InputError, match="the network takes no events"):
        simulator.advance(simulator.start(IMAGES[0]), events=np.zeros((2, 3, 9, 8), bool))
    events = Simulator(small_network(17, "events"), threads=1)
    with pytest.raises(InputError, match="no image"):
        events.start(IMAGES[0])
    with pytest.raises(InputError, match="there are no events"):
        events.advance(events.start(), 3)
    with pytest.raises(InputError, match="wrong shape"):
        events.advance(events.start(), 3, np.zeros((2, 3, 9, 8), bool))


def test_the_memory_of_a_state_is_known_beforehand():
    simulator = Simulator(every_path(0.1, 0), 8, threads=1)
    state = simulator.start(np.ones((2, 5, 4), np.float32))
    held = [
        array.nbytes
        for own in state.backend.populations
        for array in vars(own).values()
        if isinstance(array, np.ndarray)
    ]
    assert sum(held) == simulator.plan.state_bytes()
