"""Networks with one score, and networks with several outputs: classes, vectors and maps."""

from __future__ import annotations

import json

import numpy as np
import pytest

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, InputError, Linear, Network, Readout
from evsnn.run import main

RNG = np.random.default_rng(8)
IMAGES = RNG.random((5, 2, 6, 7), np.float32)
LABELS = np.array([0, 1, 0, 1, 1])


def weights(*shape) -> np.ndarray:
    return RNG.normal(size=shape, scale=0.5).astype(np.float32)


TRUNK = [
    Input((2, 6, 7)),
    Conv2d(weights(8, 2, 3, 3), weights(8), padding=1),
    IF(0.9, name="trunk"),
]
HEADS = {
    "boxes": [Conv2d(weights(4, 8, 3, 3), weights(4), padding=1, inputs="trunk", name="heads.boxes")],
    "early": [AvgPool2d(2, inputs="trunk", name="pooled"), Conv2d(weights(3, 8, 1, 1), name="heads.early")],
    "scores": [
        Flatten(inputs="trunk"),
        Linear(weights(6, 8 * 42), weights(6)),
        IF(0.7, name="hidden"),
        Linear(weights(3, 6), weights(3), name="heads.scores"),
    ],
}


def network(*names: str, spikes: bool = False, **options) -> Network:
    """The trunk with the heads of these names, the first of which is read by the task."""
    layers, ends = list(TRUNK), []
    for name in names:
        layers += HEADS[name]
        feed = layers[-1].name
        if spikes:
            layers.append(IF(0.3, shift=False, name=f"{name}.neurons"))
            feed = layers[-1].name
        ends.append(Readout(inputs=feed, name=name))
    options = {
        "task": "regress",
        "input_range": (0, 1),
        "readout": "spikes" if spikes else "membrane",
    } | options
    return Network([*layers, *ends], n_steps=7, **options)


ORDERS = (("scores", "boxes", "early"), ("early", "scores"), ("boxes", "early"))


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
@pytest.mark.parametrize("names", ORDERS)
def test_each_output_is_that_of_the_network_that_ends_there(names, arithmetic, spikes):
    net = network(*names, spikes=spikes)
    options = {"arithmetic": arithmetic, "record_steps": (2, 5)}
    found = evsnn.simulate(net, IMAGES, **options)
    assert tuple(found.named_outputs) == names and found.outputs is found.named_outputs[names[0]]
    for name in names:
        alone = evsnn.simulate(network(name, spikes=spikes), IMAGES, **options)
        np.testing.assert_array_equal(found.named_outputs[name], alone.outputs)
        assert np.ptp(alone.outputs) > 0
        if name == names[0]:
            for t in (2, 5, 7):
                np.testing.assert_array_equal(found.outputs_at[t], alone.outputs_at[t])


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_engine_and_reference_give_the_same_outputs(arithmetic, spikes):
    net = network("scores", "boxes", "early", spikes=spikes)
    runs = [
        evsnn.simulate(net, IMAGES, arithmetic=arithmetic, backend=backend, threads=threads)
        for backend, threads in (("reference", 1), ("numba", 1), ("numba", 2))
    ]
    for name in runs[0].named_outputs:
        for other in runs[1:]:
            np.testing.assert_array_equal(runs[0].named_outputs[name], other.named_outputs[name])
    assert [layer.sops for layer in runs[0].layers] == [layer.sops for layer in runs[1].layers]


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_blocks_of_steps_give_the_outputs_of_a_run(backend, spikes):
    net = network("early", "scores", spikes=spikes)
    simulator = evsnn.Simulator(net, 7, backend=backend)
    state = simulator.start(IMAGES[0])
    for n_steps in (3, 1, 3):
        block = simulator.advance(state, n_steps)
    whole = simulator.run(IMAGES[:1])
    for name, outputs in whole.named_outputs.items():
        np.testing.assert_array_equal(block.named_outputs[name], outputs)
    np.testing.assert_array_equal(state.outputs, whole.outputs[0])


def test_several_outputs_are_kept_in_a_file(tmp_path):
    net = network("scores", "boxes", task="classify", classes=("a", "b", "c"))
    evsnn.save(tmp_path / "w.h5", net)
    loaded = evsnn.load(tmp_path / "w.h5")
    assert [layer.name for layer in loaded.outputs] == ["scores", "boxes"]
    np.testing.assert_array_equal(
        evsnn.simulate(loaded, IMAGES).named_outputs["boxes"],
        evsnn.simulate(net, IMAGES).named_outputs["boxes"],
    )


def test_run_names_every_output_and_writes_them(tmp_path, capsys):
    net = network("scores", "boxes", task="classify")
    evsnn.save(tmp_path / "w.h5", net)
    np.savez(tmp_path / "x.npz", images=IMAGES)
    words = [str(tmp_path / "w.h5"), "--input", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / "o.npz")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "predictions" in told and "scores: 3 values per sample" in told and "boxes: 4x6x7 values" in told
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["outputs"]["boxes"]["shape"] == [4, 6, 7] and len(report["predictions"]) == 5
    expected = evsnn.simulate(net, IMAGES)
    with np.load(tmp_path / "o.npz") as stored:
        assert set(stored) == {"scores", "boxes", "predictions"}
        np.testing.assert_array_equal(stored["boxes"], expected.named_outputs["boxes"])
        np.testing.assert_array_equal(stored["predictions"], expected.predictions)
    assert main([*words[:-1], str(tmp_path / "no" / "o.npz")]) == 1
    assert "the file cannot be written" in capsys.readouterr().err


def one_score(**options) -> Network:
    layers = [Input((4,)), Linear(np.eye(4)), IF(), Linear([[1.0, 1.0, -1.0, -1.0]]), Readout()]
    return Network(layers, n_steps=16, input_range=(0, 1), **options)


SCORED = np.array([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.7, 0.9], [0.4, 0.4, 0.4, 0.4], [0.6, 0.4, 0.1, 0.2]])


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_one_score_tells_two_classes_apart_at_0(arithmetic):
    net = one_score(classes=("off", "on"))
    assert net.n_classes == 2 and net.output_shape == (1,)
    found = evsnn.simulate(net, SCORED, arithmetic=arithmetic, labels=[1, 0, 0, 0], record_steps=(4,))
    np.testing.assert_array_equal(found.predictions, found.outputs[:, 0] > 0)
    np.testing.assert_array_equal(found.predictions_at(4), found.outputs_at[4][:, 0] > 0)
    assert found.predictions.tolist() == [1, 0, 0, 1] and found.accuracy == 0.75
    with pytest.raises(InputError, match="0 to 2, expected integers from 0 to 1"):
        evsnn.simulate(net, SCORED, labels=[0, 1, 2, 0])


def test_names_of_one_score_are_those_of_two_classes():
    with pytest.raises(evsnn.NetworkError, match="got 1 names, expected 2"):
        one_score(classes=("on",))
    assert one_score(task="regress", classes=("metres",)).n_classes == 0


def test_parts_of_a_set_draw_the_spikes_of_the_set():
    layers = [Input((4,), encoding="poisson"), Linear(weights(6, 4)), IF(), Linear(weights(2, 6)), Readout()]
    net = Network(layers, n_steps=8)
    whole = evsnn.simulate(net, SCORED, seed=3)
    for backend in ("numba", "reference"):
        parts = [evsnn.simulate(net, SCORED[i : i + 2], seed=3, first=i, backend=backend) for i in (0, 2)]
        np.testing.assert_array_equal(np.concatenate([p.outputs for p in parts]), whole.outputs)
    assert not np.array_equal(evsnn.simulate(net, SCORED[2:], seed=3).outputs, whole.outputs[2:])
    with pytest.raises(evsnn.RunError, match="first is out of range: got -1"):
        evsnn.simulate(net, SCORED, first=-1)
