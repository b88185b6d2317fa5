"""The exported C computes what Python's integers compute, to the bit: on this computer, with sanitizers, and
on emulated cores.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from firmware_networks import cnn, digits, hidden, residual
from generate import networks
from hypothesis import HealthCheck, given, settings
from networks import input_beside_spikes

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout, RunError
from evsnn.circuit import reference
from evsnn.circuit.populations import Projection, Source
from evsnn.circuit.quantized import quantize
from evsnn.network.geometry import Window
from evsnn.network.network import Samples
from firmware_export import export_files
from firmware_export.checks.check import HOST, inputs_for, run_on
from firmware_export.checks.machines import MACHINES, Machine
from firmware_export.checks.report import on_cores
from firmware_export.files import write_files
from firmware_export.program.fast import fast_kind
from firmware_export.program.incoming import Incoming, at_once
from firmware_export.text.header import export_header
from firmware_export.text.outputs import expected_classes, expected_outputs

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-ftrapv")
GCC = Machine("host", "gcc", (), "host.c")


def shaped(quantized, images):
    """Images as `run_on` takes them."""
    circuit = quantized.circuit
    if circuit.analog:
        return quantized.encode(images.reshape(len(images), *circuit.input_shape))
    return images.reshape(len(images), quantized.n_steps, *circuit.input_shape)


@pytest.mark.slow
@given(networks(encodings=("constant", "constant", "events"), small=True))
@settings(SETTINGS, max_examples=10)
def test_random_networks_layer_by_layer(case):
    network, images = case
    quantized = quantize(network)
    run_on(GCC, export_header(quantized, "net"), shaped(quantized, images), SANITIZED, trace=True)


@pytest.mark.slow
@given(networks(encodings=("constant", "events"), small=True, warm_ups=False))
@settings(SETTINGS, max_examples=10)
def test_random_networks_step_by_step(case):
    network, images = case
    quantized = quantize(network)
    run_on(
        GCC, export_header(quantized, "net", by_step=True), shaped(quantized, images), SANITIZED, trace=True
    )


FAST = {
    "pairs": {"channels": (8, 16)},
    "four pairs": {"channels": (5, 7)},
    "two tiles": {"channels": (9, 20)},
    "three layers": {"channels": (4, 33, 18), "pool": 1},
    "wide": {"channels": (6, 11), "n_steps": 60},
    "wide, two tiles": {"channels": (6, 19, 35), "n_steps": 300, "pool": 1, "size": 8},
    "wide, rows apart": {"channels": (8, 60), "n_steps": 60, "pool": 4, "size": 32},
    "a pool of 3": {"channels": (8, 12), "pool": 3},
    "a pool of 4": {"channels": (10, 8), "pool": 4, "size": 32},
    "initial": {"channels": (8, 16), "shift": "initial"},
}

CORRECTING = {
    "corrections": {"negative_threshold": 0.02},
    "warm-up": {"warm_up_steps": 2},
    "corrections and warm-up": {"negative_threshold": 0.02, "warm_up_steps": 1},
    "all input first": {"warm_up_steps": 6},
}
NETWORKS = {
    "two tiles": lambda **neurons: cnn(channels=(9, 20), **neurons),
    "four pairs": lambda **neurons: cnn(channels=(5, 7), **neurons),
    "three layers": lambda **neurons: cnn(channels=(4, 33, 18), pool=1, **neurons),
    "a pool of 4": lambda **neurons: cnn(channels=(10, 12, 6), pool=4, size=64, n_steps=24, **neurons),
    "residual": lambda **neurons: residual(6, **neurons),
    "depthwise": lambda **neurons: depthwise(20, 2, 2, False, **neurons),
    "depthwise, last": lambda **neurons: depthwise(9, 1, 1, True, **neurons),
}


@pytest.mark.slow
@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("case", FAST)
def test_fast_code_equals_python(case, by_step):
    network = cnn(**FAST[case])
    size = network.input_shape[-1]
    images = np.concatenate(
        [digits(3, size), np.ones((1, 1, size, size), np.float32), np.zeros((1, 1, size, size), np.float32)]
    )
    quantized = quantize(network)
    is_wide = case.startswith("wide")
    for compact in (False, True) if is_wide else (False,):
        export = export_header(quantized, "net", by_step=by_step, compact=compact)
        kinds = [fast_kind(stage, export.program) for stage in export.program.stages]
        assert kinds[1:] == ["singles" if compact else "wide" if is_wide else "pairs"] * (
            len(kinds) - 1
        ) and kinds[0] == (None if by_step else "analog")
        run_on(GCC, export, shaped(quantized, images), SANITIZED, trace=True)
        for core in ("cortex-m55", "cortex-m0plus") if is_wide and size < 20 else ():
            if not MACHINES[core].missing():
                run_on(MACHINES[core], export, shaped(quantized, images[:1]))


@pytest.mark.slow
@pytest.mark.parametrize("neurons", CORRECTING)
@pytest.mark.parametrize("case", NETWORKS)
def test_fast_code_of_neurons_with_negative_spikes_and_warm_up(case, neurons):
    network = NETWORKS[case](**CORRECTING[neurons])
    quantized = quantize(network)
    images = shaped(quantized, np.random.default_rng(1).random((3, *network.input_shape), np.float32))
    traces = reference.run(quantized.circuit, images)
    assert any((trace.spikes < 0).any() for trace in traces) == neurons.startswith("corrections")
    for by_step in (False,) if "warm_up_steps" in CORRECTING[neurons] else (False, True):
        for compact in (False, True):
            export = export_header(quantized, "net", by_step=by_step, compact=compact)
            kinds = [fast_kind(stage, export.program) for stage in export.program.stages]
            assert kinds[0] == (None if by_step else "analog") and set(kinds[1:]) <= {
                "singles" if compact else "wide",
                "channelwise",
            }
            run_on(GCC, export, images, SANITIZED, trace=True)
            turn = list(NETWORKS).index(case) + list(CORRECTING).index(neurons) + by_step
            core = MACHINES[
                ("cortex-m55", "cortex-m0plus", "powerpc")[turn % 3]
            ]  # each network and each kind of neuron meets all three
            if not compact and network.input_shape[-1] < 20 and not core.missing():
                run_on(core, export, images[:1])


def test_weights_of_negative_spikes_are_not_stored_twice():
    plain, negative_threshold = (
        export_header(quantize(cnn(pool=1, n_steps=60, **neurons)), "net").constant_bytes
        for neurons in ({}, {"negative_threshold": 0.25})
    )
    assert negative_threshold < 1.02 * plain


def test_neurons_with_analog_input_alone_send_no_negative_spikes():
    """A first layer's negative spikes are not looked for: there are none, whatever the input; unless it
    begins above its threshold.
    """
    network = cnn(negative_threshold=0.05, warm_up_steps=1)
    quantized = quantize(network)
    images = shaped(quantized, np.random.default_rng(2).random((20, *network.input_shape), np.float32) * 2)
    assert not (reference.run(quantized.circuit, images)[0].spikes < 0).any()
    assert len(export_header(quantized, "net").program.stages[0].writes) == 1
    first = next(layer for layer in network.layers if isinstance(layer, IF))
    layers = [
        replace(layer, v_init=3 * layer.v_threshold) if layer is first else layer for layer in network.layers
    ]
    quantized = quantize(network.replace(layers=layers, shift="none"))
    export = export_header(quantized, "net")
    assert (
        len(export.program.stages[0].writes) == 2
        and (reference.run(quantized.circuit, images)[0].spikes < 0).any()
    )
    run_on(GCC, export, images[:3], SANITIZED, trace=True)


def depthwise(channels: int, pool: int, stride: int, last: bool, **neurons) -> Network:
    """A convolution, a depthwise one, and a 1x1 if that is not the last layer of neurons."""
    rng = np.random.default_rng(channels)
    size = 20 // pool
    layers = [
        Input((2, 20, 20)),
        Conv2d(rng.normal(size=(channels, 2, 3, 3)), padding=1),
        IF(1.5, **neurons),
        AvgPool2d(pool),
    ]
    layers += [
        Conv2d(rng.normal(size=(channels, 1, 3, 3)), padding=1, stride=stride, groups=channels),
        IF(rng.uniform(0.5, 1.0, channels), **neurons),
    ]
    layers += [] if last else [Conv2d(rng.normal(size=(7, channels, 1, 1))), IF(0.8, **neurons)]
    layers += [
        Flatten(),
        Linear(rng.normal(size=(3, (channels if last else 7) * (-(-size // stride)) ** 2))),
        Readout(),
    ]
    return Network(layers, n_steps=6, input_range=(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize(
    ("channels", "pool", "stride", "last"),
    [
        (3, 1, 1, False),
        (16, 2, 1, False),
        (20, 2, 2, False),
        (9, 4, 1, True),
        (12, 1, 2, True),
        (33, 5, 1, False),
    ],
)
def test_channelwise_weights(channels, pool, stride, last, by_step):
    quantized = quantize(depthwise(channels, pool, stride, last))
    export = export_header(quantized, "net", by_step=by_step)
    assert fast_kind(export.program.stages[1], export.program) == "channelwise"
    images = shaped(quantized, np.random.default_rng(channels).random((3, 2, 20, 20), np.float32))
    run_on(GCC, export, images, SANITIZED, trace=True)
    if not MACHINES["cortex-m0plus"].missing():
        run_on(MACHINES["cortex-m0plus"], export, images[:1])


def largest_sums(weight: np.ndarray, rows: int) -> tuple[int, int]:
    """The most that so many rows of a kernel next to each other can add to a neuron, up and down, row by
    row and neuron by neuron.
    """
    up = down = 0
    for neuron in weight.astype(int).tolist():
        for first in range(len(neuron[0]) - rows + 1):
            taken = [w for channel in neuron for row in channel[first : first + rows] for w in row]
            up, down = max(up, sum(w for w in taken if w > 0)), min(down, sum(w for w in taken if w < 0))
    return up, down


@pytest.mark.parametrize(
    ("channels", "kernel", "area"),
    [(3, 3, 1), (40, 3, 1), (90, 3, 1), (16, 5, 4), (300, 1, 1), (700, 1, 1), (200, 2, 4)],
)
def test_sums_of_a_step_are_widened_before_they_leave_16_bits(channels, kernel, area):
    rng = np.random.default_rng(channels)
    weight = rng.integers(-127, 128, (3, channels, kernel, kernel))
    pool = Window((2, 2), (2, 2)) if area == 4 else None
    source = Source(0, (channels, 9, 9), pool)
    for has_negative in (False, True):
        n = at_once(
            Incoming(Projection("", (source,), source.shape, weight, None), source, has_negative=has_negative)
        )
        either = np.abs(weight) if has_negative else weight  # a negative spike subtracts
        fits = [
            all(-(2**15) <= area * total < 2**15 for total in largest_sums(either, rows))
            for rows in range(1, kernel + 1)
        ]
        assert n == max([rows for rows, fit in enumerate(fits, 1) if fit], default=0)


@pytest.mark.slow
@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize(("n_steps", "kind"), [(5, "pairs"), (90, "wide")])
def test_fast_sums_of_two_sources_and_of_identity_shortcuts(n_steps, kind, by_step):
    quantized = quantize(residual(n_steps))
    export = export_header(quantized, "net", by_step=by_step)
    kinds = [fast_kind(stage, export.program) for stage in export.program.stages]
    assert kinds.count(kind) >= 4 and None not in kinds[1:]
    images = np.random.default_rng(0).random((3, 2, 9, 9), np.float32)
    run_on(GCC, export, shaped(quantized, images), SANITIZED, trace=True)
    if kind == "wide":
        run_on(
            GCC,
            export_header(quantized, "net", by_step=by_step, compact=True),
            shaped(quantized, images),
            SANITIZED,
            trace=True,
        )
    for core in ("cortex-m55", "cortex-m0plus", "powerpc"):
        if (n_steps < 10 or core == "cortex-m55") and not MACHINES[core].missing():
            run_on(MACHINES[core], export, shaped(quantized, images[:1]))


def test_the_code_for_any_layer_equals_the_fast_one(monkeypatch):
    quantized = quantize(cnn())
    monkeypatch.setattr("firmware_export.text.header.fast_kind", lambda stage, program: None)
    export = export_header(quantized, "net")
    assert "evsnn_pairs(" not in export.text
    run_on(GCC, export, shaped(quantized, digits()), SANITIZED)


def test_blank_places_are_passed_by_where_the_samples_have_them():
    blank, full = cnn(), cnn().replace(samples=Samples(np.ones((2, 1, 12, 12), np.float32), np.arange(2)))
    assert "blanks" in export_header(quantize(blank), "net").text
    assert "blanks" not in export_header(quantize(full), "net").text


@pytest.mark.slow
def test_signed_inputs_of_16_bits():
    rng = np.random.default_rng(1)
    network = Network(
        [
            Input((3, 7, 9)),
            Conv2d(rng.normal(size=(12, 3, 3, 3)) / 5, rng.normal(size=12) * 0.1, stride=2, padding=(1, 0)),
            IF(0.7),
            Conv2d(rng.normal(size=(6, 12, 2, 2)) / 7),
            IF(0.5),
            Flatten(),
            Linear(rng.normal(size=(4, 54))),
            Readout(),
        ],
        n_steps=7,
        input_range=(-2.5, 2.0),
    )
    quantized = quantize(network)
    images = rng.normal(size=(4, 3, 7, 9)).astype(np.float32)
    for by_step in (False, True):
        run_on(GCC, export_header(quantized, "net", by_step=by_step), shaped(quantized, images), SANITIZED)


@pytest.mark.slow
@pytest.mark.parametrize("by_step", [False, True])
def test_the_demo_model_at_every_level_of_optimisation(by_step):
    network = evsnn.load(Path(evsnn.__file__).parent / "models" / "mnist.h5")
    quantized = quantize(network, 8)
    export = export_header(quantized, "mnist", by_step=by_step)
    inputs, own = inputs_for(quantized, 2 if by_step else 5)
    assert own
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler):
            for level in ("-O0", "-O2") if by_step else ("-O0", "-O1", "-O2", "-O3", "-Os"):
                run_on(Machine("host", compiler, (), "host.c"), export, inputs, (level,))


def test_a_host_of_32_bits(tmp_path):
    (tmp_path / "x.c").write_text(
        "#include <stdint.h>\nint main(void) { return sizeof(void *) == 4 ? 0 : 1; }\n"
    )
    if subprocess.run(
        ["gcc", "-m32", str(tmp_path / "x.c"), "-o", str(tmp_path / "x")], capture_output=True
    ).returncode:
        pytest.skip("gcc has no libraries for -m32")
    quantized = quantize(cnn())
    run_on(
        Machine("host", "gcc", ("-m32",), "host.c"),
        export_header(quantized, "net"),
        shaped(quantized, digits()),
        ("-O2", "-ftrapv"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("core", MACHINES)
def test_emulated_cores(core):
    machine = MACHINES[core]
    if machine.missing():
        pytest.skip(f"{machine.missing()} is not installed")
    for by_step, network in (
        (False, cnn()),
        (True, cnn(channels=(4,), size=8, n_steps=3)),
        (False, events()),
    ):
        quantized = quantize(network)
        inputs, _ = inputs_for(quantized, 2)
        measured = run_on(machine, export_header(quantized, "net", by_step=by_step), inputs)
        assert core == "powerpc" or (
            len(measured.counted) == 2 and all(count % 65_536 for count in measured.counted)
        )


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m4", "avr"])
def test_a_report_counts_the_flash_of_the_network_without_that_of_the_samples(core):
    if MACHINES[core].missing():
        pytest.skip(f"{MACHINES[core].missing()} is not installed")
    for network in (cnn(channels=(4,), size=8, n_steps=3), events()):
        export = export_header(quantize(network), "net")
        few, many = (
            on_cores(export, inputs_for(export.program.network, n)[0], [core])[0]["flash_bytes"]
            for n in (2, 9)
        )
        assert export.constant_bytes < few and abs(many - few) < 64


def events() -> Network:
    rng = np.random.default_rng(5)
    return Network(
        [
            Input((2, 5, 6), "events"),
            Conv2d(rng.normal(size=(6, 2, 3, 3)) / 2, padding=1),
            IF(0.8, negative_threshold=0.2),
            AvgPool2d(2, 1),
            Conv2d(rng.normal(size=(6, 1, 2, 2)), groups=6),
            IF(0.6, leak=0.875),
            Flatten(),
            Linear(rng.normal(size=(5, 72))),
            Readout(),
        ],
        n_steps=5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4", "rv32"])
def test_stated_memory_is_what_a_core_takes(core):
    """The stack grows with the rows of a kernel, which behind a Flatten are those of the map."""
    machine = MACHINES[core]
    if machine.missing():
        pytest.skip(f"{machine.missing()} is not installed")
    small = (cnn(), events(), cnn(negative_threshold=0.1)) if core == "cortex-m4" else ()
    for by_step in (False, True) if small else (False,):
        for network in (*small, hidden(), hidden(negative_threshold=0.2)):
            quantized = quantize(network)
            export = export_header(quantized, "net", by_step=by_step)
            inputs, _ = inputs_for(quantized, 2)
            measured = run_on(machine, export, inputs)
            assert f"bytes {export.context_bytes}\n" in measured.text
            stated = int(export.text.split("NET_STACK_BYTES ")[1].split()[0])
            assert stated - 512 < measured.stack_bytes <= stated


def compile_only(text: str, tmp_path: Path, compiler: str, standard: str, *flags: str):
    source = tmp_path / ("x.cc" if "++" in compiler else "x.c")
    source.write_text(text)
    return subprocess.run(
        [
            compiler,
            f"-std={standard}",
            *flags,
            "-I",
            str(tmp_path),
            "-c",
            str(source),
            "-o",
            str(tmp_path / "x.o"),
        ],
        capture_output=True,
        text=True,
    )


STRICT = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wshadow",
    "-Wdouble-promotion",
    "-Wundef",
    "-Werror",
]


USER = (
    '#define NET_SELF_TEST\n#include "net.h"\nint user(net_ctx_t *c); int user(net_ctx_t *c) { return'
    " net_init(c) || net_run(c, NET_N_STEPS) || net_predict(c); }\n"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "standard"),
    [
        ("gcc", "c99"),
        ("clang", "c99"),
        ("g++", "c++11"),
        ("g++", "c++17"),
        ("clang++", "c++11"),
        ("clang++", "c++17"),
    ],
)
def test_no_warnings_and_no_strange_symbols(compiler, standard, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    for network in (
        cnn(),
        cnn(n_steps=60),
        events(),
        residual(negative_threshold=0.1),
        depthwise(9, 2, 1, False, negative_threshold=0.1, warm_up_steps=2),
    ):
        quantized = quantize(network)
        negative_threshold = any(
            population.has_negative_spikes for population in quantized.circuit.populations
        )
        for by_step, compact in product(
            (False,) if quantized.circuit.has_warm_up else (False, True),
            (False, True) if negative_threshold else (False,),
        ):
            export = export_header(
                quantized, "net", by_step=by_step, compact=compact, n_vectors=2 if network.samples else 0
            )
            write_files(tmp_path, export_files(export))
            done = compile_only(USER, tmp_path, compiler, standard, "-O2", *STRICT)
            assert done.returncode == 0, done.stderr[:2000]
            symbols = subprocess.run(
                ["nm", str(tmp_path / "x.o")], capture_output=True, text=True
            ).stdout.split("\n")
            wanted = {line.split()[-1] for line in symbols if " U " in line}
            assert wanted <= {"memset"}
            assert all("user" in line for line in symbols if " T " in line)


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_no_warnings_of_a_cross_compiler(core, tmp_path):
    machine = MACHINES[core]
    if machine.missing():
        pytest.skip(f"{machine.missing()} is not installed")
    for network, compact in product(
        (
            residual(negative_threshold=0.1),
            depthwise(9, 2, 1, False, negative_threshold=0.1, warm_up_steps=2),
        ),
        (False, True),
    ):
        write_files(tmp_path, export_files(export_header(quantize(network), "net", compact=compact)))
        done = compile_only(USER, tmp_path, machine.compiler, "c99", *machine.flags, "-O2", *STRICT)
        assert done.returncode == 0, done.stderr[:2000]


def test_a_self_test_finds_a_changed_weight(tmp_path):
    export = export_header(quantize(cnn()), "net", n_vectors=3)
    main = (
        '#define NET_SELF_TEST\n#include "net.h"\nstatic net_ctx_t c;\nint main(void) { return'
        " net_self_test(&c); }\n"
    )

    def status(text: str) -> int:
        write_files(tmp_path, export_files(replace(export, text=text)))
        (tmp_path / "m.c").write_text(main)
        subprocess.run(
            ["gcc", "-I", str(tmp_path), str(tmp_path / "m.c"), "-o", str(tmp_path / "m")],
            check=True,
            capture_output=True,
        )
        return subprocess.run([str(tmp_path / "m")]).returncode

    assert status(export.text) == 0
    head, _, rest = export.text.partition("net_test_outputs[")
    numbers = rest.partition("{")[2].split(",", 1)
    assert (
        status(f"{head}net_test_outputs[{rest.partition('{')[0]}{{ {int(numbers[0]) + 1},{numbers[1]}") == 1
    )


def program(declarations: str, calls: tuple[str, ...]) -> str:
    """C that prints the result of one call after the other."""
    lines = "\n".join(f'    printf("%d ", {call});' for call in calls)
    return (
        f'#include <stdio.h>\n#include "net.h"\nstatic net_ctx_t c;\n{declarations}\nint main(void)'
        f" {{\n{lines}\n    return 0;\n}}\n"
    )


def results(tmp_path: Path, export, declarations: str, calls: tuple[str, ...]) -> list[int]:
    """What calls give, one after the other."""
    write_files(tmp_path, export_files(export))
    (tmp_path / "m.c").write_text(program(declarations, calls))
    subprocess.run(
        ["gcc", *SANITIZED, "-I", str(tmp_path), str(tmp_path / "m.c"), "-o", str(tmp_path / "m")],
        check=True,
        capture_output=True,
    )
    return [
        int(word)
        for word in subprocess.run(
            [str(tmp_path / "m")], capture_output=True, text=True, check=True
        ).stdout.split()
    ]


@pytest.mark.slow
def test_calls_that_are_wrong_return_codes(tmp_path):
    calls = (
        "net_init(NULL)",
        "net_set_input(NULL, x, NET_INPUT_LENGTH)",
        "net_run(NULL, NET_N_STEPS)",
        "net_predict(NULL)",
        "net_set_input(&c, x, NET_INPUT_LENGTH)",
        "net_run(&c, NET_N_STEPS)",
        "net_init(&c)",
        "net_predict(&c)",
        "net_run(&c, NET_N_STEPS)",
        "net_set_input(&c, NULL, NET_INPUT_LENGTH)",
        "net_set_input(&c, x, NET_INPUT_LENGTH - 1)",
        "net_set_input(&c, x, NET_INPUT_LENGTH)",
        "net_run(&c, NET_N_STEPS + 1)",
        "net_run(&c, NET_N_STEPS)",
        "net_run(&c, 1)",
        "net_predict(&c) >= 0",
    )
    null, length, out_of_range, state = -1, -2, -3, -4
    for by_step in (False, True):
        found = results(
            tmp_path,
            export_header(quantize(cnn()), "net", by_step=by_step),
            "static uint8_t x[NET_INPUT_LENGTH];",
            calls,
        )
        assert found == [null] * 4 + [state] * 2 + [
            0,
            state,
            state,
            null,
            length,
            0,
            out_of_range,
            0,
            state,
            1,
        ]


def test_more_steps_than_are_left_are_refused_and_none_is_made(tmp_path):
    calls = (
        "net_init(&c)",
        "net_set_input(&c, x, NET_INPUT_LENGTH)",
        "net_run(&c, 4)",
        "net_run(&c, 3)",
        "c.step",
        "net_run(&c, 0)",
        "net_run_until(&c, 0xffffffffu)",
        "net_step(&c)",
        "net_run(&c, 0)",
    )
    found = results(
        tmp_path,
        export_header(quantize(cnn(n_steps=6)), "net", by_step=True),
        "static uint8_t x[NET_INPUT_LENGTH];",
        calls,
    )
    assert found == [0, 0, 0, -3, 4, 0, 6, -4, -4]


@pytest.mark.parametrize("by_step", [False, True])
def test_macros_bound_the_work_and_the_input(by_step):
    rng = np.random.default_rng(0)
    network = Network(
        [
            Input((784,)),
            Linear(rng.normal(size=(128, 784))),
            IF(9.0),
            Linear(rng.normal(size=(10, 128))),
            Readout(),
        ],
        n_steps=8,
        input_range=(-1, 3),
    )
    quantized = quantize(network)
    words = [
        line.split()
        for line in export_header(quantized, "net", by_step=by_step).text.splitlines()
        if line.startswith("#define NET_")
    ]
    macros = {word[1].removeprefix("NET_"): word[2] for word in words if len(word) > 2}
    assert macros["MACS_INPUT"] == f"{784 * 128}u" and macros["SOPS_MAX"] == f"{8 * 128 * 10}u"
    assert (macros["INPUT_MIN"], int(macros["INPUT_MAX"])) == (
        f"({quantized.input_low})",
        quantized.input_high,
    ) and float(macros["INPUT_SCALE"]) == quantized.input_scale


@pytest.mark.parametrize(("lanes", "status"), [(4, 0), (8, 0), (1, None), (6, None), (16, None)])
def test_lanes_are_4_or_8(tmp_path, lanes, status):
    write_files(tmp_path, export_files(export_header(quantize(cnn()), "net", n_vectors=2)))
    (tmp_path / "m.c").write_text(
        '#define NET_SELF_TEST\n#include "net.h"\nstatic net_ctx_t c;\nint main(void) { return'
        " net_self_test(&c); }\n"
    )
    done = subprocess.run(
        ["gcc", f"-DEVSNN_LANES={lanes}", str(tmp_path / "m.c"), "-o", str(tmp_path / "m")],
        capture_output=True,
        text=True,
    )
    assert ("EVSNN_LANES is 4 or 8" in done.stderr) == (status is None)
    assert status is None or subprocess.run([str(tmp_path / "m")]).returncode == status


@pytest.mark.parametrize("by_step", [False, True])
def test_an_input_that_is_out_of_range_is_refused(tmp_path, by_step):
    """Ranges of membranes are proven for inputs in the stated range alone."""
    network = Network(
        [Input((1, 4, 4)), Flatten(), Linear(np.ones((5, 16))), IF(9.0), Linear(np.ones((2, 5))), Readout()],
        n_steps=4,
        input_range=(-1, 1),
    )
    bounds = [
        f"(x[15] = (int16_t)({value}), net_set_input(&c, x, 16))"
        for value in (
            "NET_INPUT_MIN",
            "NET_INPUT_MAX",
            "NET_INPUT_MIN - 1",
            "NET_INPUT_MAX + 1",
            "-32767 - 1",
            "32767",
        )
    ]
    calls = ("net_init(&c)", bounds[2], "net_run(&c, 4)", bounds[0], bounds[1], *bounds[2:], "net_run(&c, 4)")
    found = results(
        tmp_path,
        export_header(quantize(network), "net", by_step=by_step),
        "static int16_t x[NET_INPUT_LENGTH];",
        calls,
    )
    assert found == [0, -3, -4, 0, 0, -3, -3, -3, -3, 0]


def test_events_outside_are_refused_and_do_nothing(tmp_path):
    calls = (
        "net_push_event(NULL, 0, 0, 0)",
        "net_push_event(&c, 0, 0, 0)",
        "net_init(&c)",
        "net_push_event(&c, 6, 0, 0)",
        "net_push_event(&c, 0, 5, 0)",
        "net_push_event(&c, 0, 0, 2)",
        "net_push_event(&c, 5, 4, 1)",
        "net_push_event(&c, 5, 4, 1)",
        "net_run(&c, NET_N_STEPS)",
        "net_step(&c)",
    )
    assert results(tmp_path, export_header(quantize(events()), "net", by_step=True), "", calls) == [
        -1,
        -4,
        0,
        -3,
        -3,
        -3,
        0,
        0,
        0,
        -4,
    ]


def test_early_exit_stops_at_the_margin(tmp_path):
    quantized = quantize(cnn(n_steps=12))
    inputs, _ = inputs_for(quantized, 1)
    trace = [expected_outputs(quantize(cnn(n_steps=12)), inputs)]
    margins = np.sort(trace[0][0])[::-1]
    assert margins[0] > margins[1], "the last step has a winner"
    main = f"""#include <stdio.h>
#include "net.h"
static net_ctx_t c; static const uint8_t x[NET_INPUT_LENGTH] = {{{",".join(map(str, inputs.ravel()))}}};
int main(void) {{
    int all, some;
    net_init(&c);
    net_set_input(&c, x, NET_INPUT_LENGTH);
    all = net_run_until(&c, 0xffffffffu);
    printf("%d %u ", all, (unsigned)net_margin(&c));
    net_set_input(&c, x, NET_INPUT_LENGTH);
    some = net_run_until(&c, 1);
    printf("%d %d\\n", some, net_margin(&c) >= 1 || some == all);
    return 0;
}}
"""
    write_files(tmp_path, export_files(export_header(quantized, "net", by_step=True)))
    (tmp_path / "m.c").write_text(main)
    subprocess.run(
        ["gcc", "-I", str(tmp_path), str(tmp_path / "m.c"), "-o", str(tmp_path / "m")],
        check=True,
        capture_output=True,
    )
    steps, margin, some, right = map(
        int, subprocess.run([str(tmp_path / "m")], capture_output=True, text=True).stdout.split()
    )
    assert (steps, margin, right) == (12, margins[0] - margins[1], 1) and some <= 12


@pytest.mark.slow
@pytest.mark.parametrize("amplitudes", [(1.0, 0.5), (0.75, 0.125, 0.3, 0.9)])
def test_classes_whose_spikes_count_differently(amplitudes):
    """The predicted class is Python's, also in ties such as 6 spikes of 1 and 12 of 1/2; how far a class
    leads is not told in spikes.
    """
    n = len(amplitudes)
    network = Network(
        [Input((n,)), Linear(np.eye(n)), IF(np.array(amplitudes)), Readout()],
        n_steps=12,
        readout="spikes",
        input_range=(0, 1),
        shift="none",
    )
    quantized = quantize(network)
    images = np.concatenate(
        [np.linspace(0, 1, 256)[:, None].repeat(n, 1), np.random.default_rng(0).random((100, n))]
    ).astype(np.float32)
    inputs = shaped(quantized, images)
    outputs = expected_outputs(quantized, inputs)
    weighted = outputs * np.array(amplitudes, np.float32).astype(float)
    assert (np.sort(weighted, axis=1)[:, -2:].min(axis=1) == weighted.max(axis=1)).any(), "there are ties"
    assert np.array_equal(
        expected_classes(quantized, outputs),
        evsnn.simulate(network, images, n_steps=12, arithmetic="int8").predictions,
    )
    for by_step in (False, True):
        export = export_header(quantized, "net", by_step=by_step)
        run_on(GCC, export, inputs, SANITIZED)
        assert "net_margin" not in export.text and "net_run_until" not in export.text


@pytest.mark.slow
@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("gain", [0.01, 1.0, 300.0])
def test_the_analog_input_beside_spikes_has_a_grid_of_its_own(gain, by_step):
    network = input_beside_spikes(gain)
    quantized = quantize(network)
    shift = quantized.circuit.populations[1].analog_shift
    assert shift is not None and ((shift > 0).all() or (gain > 1 and (shift < 0).any()))
    images = np.random.default_rng(3).random((3, *network.input_shape), np.float32)
    export = export_header(quantized, "net", by_step=by_step)
    run_on(GCC, export, shaped(quantized, images), SANITIZED, trace=True)
    for core in ("cortex-m0plus", "avr"):
        if not MACHINES[core].missing():
            run_on(MACHINES[core], export, shaped(quantized, images[:1]))


def test_warm_up_cannot_run_step_by_step():
    network = Network(
        [Input((4,)), Linear(np.ones((3, 4))), IF(1.0, warm_up_steps=2), Linear(np.ones((2, 3))), Readout()],
        n_steps=4,
        input_range=(0, 1),
    )
    with pytest.raises(RunError, match="layer by layer"):
        export_header(quantize(network), "net", by_step=True)
    run_on(GCC, export_header(quantize(network), "net"), np.full((1, 4, 1, 1), 200), SANITIZED)


def test_this_computer_has_a_compiler():
    assert HOST().missing() is None
