"""What exported networks take on emulated cores: the tables of docs/firmware.md.

    python tests/benchmarks/firmware.py [--samples N] [--only correcting] [--write]

Every core whose compiler and emulator are installed runs the demo model and the two networks of
examples/firmware at several T, networks with random weights that no recipe here was made for (wide, unpooled,
residual, with a hidden linear layer), and two of the first with negative spikes and warm-up, as
`auto` makes them for few steps ("correcting"). Outputs are compared with Python's; a difference ends the
run. --write puts the tables between the marks in docs/firmware.md. Instructions are exact and the same in
every run; they are not cycles.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import evsnn  # noqa: E402
from evsnn import IF, Add, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout  # noqa: E402
from evsnn.network.network import Samples  # noqa: E402
from firmware_export import Settings, export_network  # noqa: E402
from firmware_export.checks.check import inputs_for  # noqa: E402
from firmware_export.checks.report import dense_macs, on_cores, weight_additions  # noqa: E402

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "rv32")
PAGE = ROOT / "docs" / "firmware.md"


def random_networks() -> Iterator[tuple[str, Network]]:
    """Networks that nothing here was tuned for, on 16x16 pictures half of which are empty."""
    rng = np.random.default_rng(0)
    images = (rng.random((4, 3, 16, 16)) * (rng.random((4, 3, 16, 16)) < 0.5)).astype(np.float32)
    samples = Samples(images, np.zeros(4, np.int64))

    def conv(n_out: int, n_in: int, kernel: int = 3, **options) -> Conv2d:
        return Conv2d(
            rng.normal(size=(n_out, n_in, kernel, kernel)) * np.sqrt(2 / (n_in * kernel * kernel)),
            rng.normal(size=n_out) * 0.1,
            padding=kernel // 2,
            **options,
        )

    def network(*layers) -> Network:
        return Network(
            [Input((3, 16, 16)), *layers, Readout()],
            n_steps=8,
            shift="initial",
            input_range=(0, 1),
            samples=samples,
        )

    def readout(n_in: int) -> Linear:
        return Linear(rng.normal(size=(10, n_in)) / np.sqrt(n_in))

    yield (
        "32C-P-64C-P-10",
        network(
            conv(32, 3), IF(2.0), AvgPool2d(2), conv(64, 32), IF(1.2), AvgPool2d(2), Flatten(), readout(1024)
        ),
    )
    yield (
        "16C-16C-P-32C-32C-P-10",
        network(
            conv(16, 3),
            IF(2.0),
            conv(16, 16),
            IF(2.0),
            AvgPool2d(2),
            conv(32, 16),
            IF(1.2),
            conv(32, 32),
            IF(1.2),
            AvgPool2d(2),
            Flatten(),
            readout(512),
        ),
    )
    yield (
        "16C-[16C-16C]-P-10, residual",
        network(
            conv(16, 3, name="c0"),
            IF(2.0, name="s0"),
            conv(16, 16, name="c1"),
            IF(2.0, name="s1"),
            conv(16, 16, name="c2"),
            Add(name="sum", inputs=("c2", "s0")),
            IF(3.0, name="s2"),
            AvgPool2d(4, name="p"),
            Flatten(name="f"),
            readout(256),
        ),
    )
    yield (
        "16C-P-128-10",
        network(
            conv(16, 3),
            IF(2.0),
            AvgPool2d(2),
            Flatten(),
            Linear(rng.normal(size=(128, 1024)) / 16),
            IF(1.0),
            readout(128),
        ),
    )
    yield (
        "16C-16DW-32C1-P-10",
        network(
            conv(16, 3),
            IF(2.0),
            Conv2d(rng.normal(size=(16, 1, 3, 3)) / 2, padding=1, groups=16),
            IF(1.0),
            conv(32, 16, 1),
            IF(1.2),
            AvgPool2d(2),
            Flatten(),
            readout(2048),
        ),
    )


def trained_networks() -> Iterator[tuple[str, Network, int]]:
    for file, steps in (
        ("evsnn/models/mnist.h5", (8, 16)),
        ("examples/firmware/digits_cnn.h5", (4, 8, 16)),
        ("examples/firmware/digits_mlp.h5", (16,)),
    ):
        network = evsnn.load(ROOT / file)
        for n_steps in steps:
            yield Path(file).name, network, n_steps


def correcting_networks() -> Iterator[tuple[str, Network, int]]:
    """Negative spikes and warm-up in networks that were converted without: what they cost, not what they
    gain.
    """
    for file in ("evsnn/models/mnist.h5", "examples/firmware/digits_cnn.h5"):
        network = evsnn.load(ROOT / file).at(8)
        for neurons in ({"negative_threshold": 0.25}, {"negative_threshold": 0.25, "warm_up_steps": 2}):
            layers = [
                replace(layer, **neurons) if isinstance(layer, IF) else layer for layer in network.layers
            ]
            yield (
                f"{Path(file).name}, {', '.join(f'{name} {value}' for name, value in neurons.items())}",
                network.replace(layers=layers),
                8,
            )


def measured(title: str, network: Network, n_steps: int, samples: int) -> list[str]:
    """Rows of the table, a core each."""
    export = export_network(network, Settings(name="net", n_steps=n_steps))
    inputs, _ = inputs_for(export.program.network, samples)
    sops, additions = weight_additions(export.program.network, inputs)
    print(f"{title}, T = {n_steps}: {sops:,.0f} SOPs, {additions:,.0f} additions", file=sys.stderr)
    rows = []
    for row in on_cores(export, inputs, CORES, lambda text: print(text, file=sys.stderr)):
        if row["missing"]:
            continue
        per = row["per_sample"]
        rows.append(
            f"| {title} | {n_steps} | {row['core']} | {per:,.0f} | {per / additions:.2f} |"
            f" {per / dense_macs(export.program.network):.2f} | {row['context_bytes']:,} |"
            f" {row['stack_bytes']:,} | {row['flash_bytes']:,} |"
        )
    return rows


def page_with(mark: str, text: str) -> None:
    """Put a text between two marks of docs/firmware.md."""
    begin, end = (f"<!-- measured, {mark}: {what} -->" for what in ("begin", "end"))
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--only", choices=("plain", "correcting"), help="default: both parts")
    parser.add_argument("--write", action="store_true", help="into docs/firmware.md")
    arguments = parser.parse_args()
    head = (
        "| network | T | core | instructions a sample | per addition | per MAC of the ANN | RAM | stack |"
        " flash |\n|---|---|---|---|---|---|---|---|---|"
    )
    tables = {}
    if arguments.only != "correcting":
        rows = [
            row
            for title, network, n_steps in trained_networks()
            for row in measured(title, network, n_steps, arguments.samples)
        ]
        others = [
            row
            for title, network in random_networks()
            for row in measured(title, network, 8, min(4, arguments.samples))
        ]
        tables["firmware"] = "\n".join(
            [head, *rows, "", "Random weights, T = 8, 16x16x3 inputs half of which are 0:", "", head, *others]
        )
    if arguments.only != "plain":
        tables["correcting"] = "\n".join(
            [head, *(row for of in correcting_networks() for row in measured(*of, arguments.samples))]
        )
    for mark, text in tables.items():
        page_with(mark, text) if arguments.write else print(text)


if __name__ == "__main__":
    main()
