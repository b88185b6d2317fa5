"""Which code computes a layer: kinds of fast code, what they support, and the reasons why there is none."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from firmware_networks import cnn, residual
from networks import strange

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout, RunError
from evsnn.circuit.neuron import GRADED, NEURON_FEATURES
from evsnn.circuit.quantized import quantize
from firmware_export import Settings, export_network
from firmware_export.__main__ import main
from firmware_export.program.fast import FAST, code_of, fast_kind
from firmware_export.program.program import SUPPORTS, program_of
from firmware_export.text.header import export_header


def codes(network: Network, **options) -> list[tuple[str | None, tuple[str, ...]]]:
    program = program_of(quantize(network), **options)
    return [dataclasses.astuple(code_of(stage, program)) for stage in program.stages]


def one_layer(*layers, channels: int = 6) -> Network:
    """Events, some layers that end in neurons, and a readout."""
    shape = (channels, 6, 6)
    first = Input(shape, "events")
    for layer in layers:
        shape = layer.output_shape([shape])
    last = Linear(np.random.default_rng(0).normal(size=(3, int(np.prod(shape)))))
    return Network([first, *layers, Flatten(), last, Readout()], n_steps=4)


def conv(n_out: int, n_in: int, kernel: int = 3, **options) -> Conv2d:
    return Conv2d(np.random.default_rng(1).normal(size=(n_out, n_in, kernel, kernel)), padding=1, **options)


@pytest.mark.parametrize(
    ("layers", "kind", "reason"),
    [
        ((conv(8, 6), IF(1.0)), "pairs", None),
        ((conv(8, 6), IF(1.0, negative_threshold=0.1)), "wide", None),
        ((conv(6, 1, groups=6), IF(1.0)), "channelwise", None),
        ((conv(8, 6), IF(1.0, leak=0.5)), None, "leak"),
        ((conv(8, 3, groups=2), IF(1.0)), None, "weights in groups"),
        ((conv(8, 6, 2, dilation=2), IF(1.0)), None, "a kernel whose columns are apart (dilation)"),
    ],
)
def test_a_layer_has_fast_code_or_a_reason(layers, kind, reason):
    found, reasons = codes(one_layer(*layers))[0]
    assert found == kind and (reason in reasons if reason else not reasons)


def test_the_nearest_kind_gives_the_reasons():
    analog = codes(cnn(), by_step=True)[0]
    assert analog == (None, ("its currents are kept from step to step",))
    spikes = Network(
        [Input((4,)), Linear(np.eye(4)), IF(1.0), Readout()], n_steps=4, readout="spikes", input_range=(0, 1)
    )
    assert codes(spikes) == [(None, ("it is read out",))]


def test_pools_and_readouts_have_code_of_their_own():
    pooled = one_layer(conv(4, 6), IF(1.0), MaxPool2d(2), conv(4, 4), IF(1.0, leak=0.5), AvgPool2d(2, 1))
    program = program_of(quantize(pooled))
    kinds = {stage.kind: code_of(stage, program) for stage in program.stages}
    assert kinds["maxpool"].reasons == kinds["pool"].reasons == ()


@pytest.mark.parametrize("kind", FAST, ids=lambda kind: kind.name)
def test_every_kind_is_found_and_falls_back_for_a_feature_that_it_does_not_know(kind):
    options = {
        "analog": (cnn(), {}),
        "channelwise": (one_layer(conv(6, 1, groups=6), IF(1.0)), {}),
        "pairs": (cnn(), {}),
        "wide": (cnn(n_steps=60), {}),
        "singles": (cnn(n_steps=60), {"compact": True}),
    }
    network, settings = options[kind.name]
    program = program_of(quantize(network), **settings)
    at = next(i for i, stage in enumerate(program.stages) if fast_kind(stage, program) == kind.name)
    stage = program.stages[at]
    circuit = strange(program.network.circuit, stage.population)
    changed = dataclasses.replace(program, network=dataclasses.replace(program.network, circuit=circuit))
    code = code_of(stage, changed)
    assert code.kind is None and "made-up feature" in code.reasons


def test_an_export_refuses_what_it_does_not_know(monkeypatch):
    quantized = quantize(cnn())
    odd = dataclasses.replace(quantized, circuit=strange(quantized.circuit))
    with pytest.raises(RunError, match="firmware does not support made-up feature"):
        export_header(odd, "net")
    monkeypatch.setattr("firmware_export.export.quantize", lambda *a, **k: odd)
    with pytest.raises(RunError, match=r"layer .*: firmware does not support made-up feature"):
        export_network(cnn(), Settings(name="net"))


def test_kinds_list_what_they_support_themselves():
    """A constant that all share would let a new feature slip through."""
    assert NEURON_FEATURES - {GRADED} <= SUPPORTS
    for kind in FAST:
        assert kind.supports < SUPPORTS
    source = code_of.__globals__["__loader__"].get_source(code_of.__module__)
    assert source.count("supports=frozenset(") == len(FAST)


def test_the_command_says_which_code_and_why(tmp_path, capsys):
    evsnn.save(tmp_path / "x.h5", residual())
    words = [str(tmp_path / "x.h5"), "-o", str(tmp_path / "out"), "--order", "step"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "any layer" in out and "its currents are kept from step to step" in out and "pairs" in out
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["code"]
    assert rows[0]["code"] == "any layer" and rows[0]["why"] == ["its currents are kept from step to step"]
    assert {row["code"] for row in rows[1:]} == {"pairs", "totals"}
    assert all(not row["why"] for row in rows[1:])
