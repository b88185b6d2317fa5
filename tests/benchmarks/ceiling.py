"""Speed of each layer beside the core's own ceiling, measured in the same run.

::

    python tests/benchmarks/ceiling.py [--networks alone,vgg16,...] [--steps 16] [--arithmetic float32,int8]
                                       [--rounds N] [--core N] [--cache DIR] [--json FILE]

A layer's time holds everything done for it: its event queue, the counting of events, the additions, the
comparison and reset of its membranes, and fetching its weights from wherever they lie, once a sample. The
ceiling (`evsnn.engine.ceiling.Gather`) is nothing but additions of rows that are in the nearest cache large
enough for one tile. "bound" is the larger of two times that no layer can beat, as a share of the layer's: the
additions at the ceiling, and one reading of its weights at the rate of `evsnn.engine.ceiling.Stream`.

"alone" is not a network: single 3x3 layers of 128 to 512 channels on maps of 16 to 4, at 5 to 20 % random
events, run over and over, so that their weights lie where the ceiling's do.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import networks
import numpy as np
from compare import choice, cpu_model, positive
from workers import pin_threads

LEAST_CHANNELS, LEAST_RATE = 128, 0.05  # layers for which the share of the ceiling is summed up
RUNS_A_ROUND = 3
ALONE, RATES = ((128, 16), (256, 8), (512, 4)), (0.05, 0.1, 0.2)


def measure(network: str, n_steps: int, arithmetic: str, cache: Path, rounds: int) -> list[dict]:
    """Time a network's layers and their ceilings in turns.

    Returns
    -------
    list of dict
        A layer that receives events each: ``name``, ``shape``, ``event_rate`` (events a step and input),
        ``sops``, ``time_ms`` (median), ``gsops``, ``ceiling_gsops``, ``share``, ``block_bytes`` (weights of a
        tile), ``weight_bytes``, ``stream_gigabytes_a_second``, ``bound`` (share of the time that is
        inevitable).
    """
    import evsnn
    from evsnn.engine.ceiling import Gather, Stream

    simulator = evsnn.Simulator(
        evsnn.load(networks.path(cache, network, ".h5")), n_steps, arithmetic=arithmetic, threads=1
    )
    image = networks.images(network, cache)[:1]
    result = simulator.run(image)
    plans = simulator.plan.populations
    blocks = [p.tile_rows * p.lanes * np.dtype(p.weight_type).itemsize for p in plans]
    ceilings = {block: Gather(arithmetic, block) for block in sorted({*blocks} - {0})}
    stream = Stream(arithmetic, sum(block * p.n_tiles for block, p in zip(blocks, plans)))
    rates: list[float] = []
    times: list[list[float]] = []
    gsops: dict[int, list[float]] = {block: [] for block in ceilings}
    for _ in range(rounds):
        simulator.run(image)
        for _ in range(RUNS_A_ROUND):
            times.append([layer.time_ms for layer in simulator.run(image).layers])
        for block, ceiling in ceilings.items():
            gsops[block].append(ceiling.gsops())
        rates.append(stream.gigabytes_a_second())
    rows = []
    for layer, p, block, time_ms in zip(result.layers, plans, blocks, np.median(times, axis=0)):
        if not block:
            continue
        inputs = sum(int(np.prod(projection.shape)) for projection in p.population.projections)
        speed, limit, rate = (
            layer.sops / time_ms / 1e6,
            float(np.median(gsops[block])),
            float(np.median(rates)),
        )
        inevitable_ms = max(layer.sops / limit, block * p.n_tiles / rate) / 1e6
        rows.append(
            {
                "name": layer.name,
                "projection": layer.projection,
                "shape": layer.shape,
                "event_rate": layer.n_events / (inputs * n_steps),
                "sops": layer.sops,
                "time_ms": float(time_ms),
                "gsops": speed,
                "ceiling_gsops": limit,
                "share": speed / limit,
                "block_bytes": block,
                "weight_bytes": block * p.n_tiles,
                "membrane": p.membrane,
                "lanes": p.lanes,
                "stream_gigabytes_a_second": rate,
                "bound": inevitable_ms / float(time_ms),
            }
        )
    return rows


def measure_alone(n_steps: int, arithmetic: str, rounds: int) -> list[dict]:
    """The same for single layers that nothing else runs beside."""
    import evsnn
    from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, Network, Readout
    from evsnn.engine.ceiling import Gather, Stream

    rng = np.random.default_rng(0)
    rows = []
    for channels, size in ALONE:
        for rate in RATES:
            threshold = float(np.sqrt(9 * channels * rate * n_steps))
            network = Network(
                [
                    Input((channels, size, size), "events"),
                    Conv2d(
                        rng.normal(size=(channels, channels, 3, 3)), rng.normal(size=channels) / 10, padding=1
                    ),
                    IF(threshold, name=f"{rate:.0%}"),
                    AvgPool2d(),
                    Flatten(),
                    Linear(np.ones((2, channels))),
                    Readout(),
                ],
                n_steps=n_steps,
                shift="bias",
            )
            simulator = evsnn.Simulator(network, arithmetic=arithmetic, threads=1)
            events = rng.random((1, n_steps, channels, size, size)) < rate
            p = simulator.plan.populations[0]
            block = p.tile_rows * p.lanes * np.dtype(p.weight_type).itemsize
            ceiling, stream = Gather(arithmetic, block), Stream(arithmetic, block * p.n_tiles)
            simulator.run(events)
            times, gsops, reading = [], [], []
            for _ in range(rounds):
                layers = [simulator.run(events).layers[0] for _ in range(RUNS_A_ROUND)]
                times += [layer.time_ms for layer in layers]
                gsops.append(ceiling.gsops())
                reading.append(stream.gigabytes_a_second())
            layer, time_ms, limit = layers[-1], float(np.median(times)), float(np.median(gsops))
            speed = layer.sops / time_ms / 1e6
            rows.append(
                {
                    "name": layer.name,
                    "projection": layer.projection,
                    "shape": layer.shape,
                    "event_rate": rate,
                    "sops": layer.sops,
                    "time_ms": time_ms,
                    "gsops": speed,
                    "ceiling_gsops": limit,
                    "share": speed / limit,
                    "block_bytes": block,
                    "weight_bytes": block * p.n_tiles,
                    "membrane": p.membrane,
                    "lanes": p.lanes,
                    "stream_gigabytes_a_second": float(np.median(reading)),
                    "bound": speed / limit,
                }
            )
    return rows


def counted(row: dict) -> bool:
    """Whether a layer is wide and busy enough to be summed up."""
    return row["shape"][0] >= LEAST_CHANNELS and row["event_rate"] >= LEAST_RATE


def lines(rows: Sequence[dict]) -> list[str]:
    """A table for people."""
    table = [
        (
            "layer",
            "shape",
            "projection",
            "membrane",
            "events",
            "M SOPs",
            "ms",
            "GSOP/s",
            "ceiling",
            "share",
            "bound",
            "tile KiB",
            "weights MiB",
        )
    ]
    for row in rows:
        table.append(
            (
                row["name"],
                "x".join(map(str, row["shape"])),
                row["projection"],
                f"{row['membrane']} x {row['lanes']}",
                f"{row['event_rate']:.1%}",
                f"{row['sops'] / 1e6:.2f}",
                f"{row['time_ms']:.3f}",
                f"{row['gsops']:.1f}",
                f"{row['ceiling_gsops']:.1f}",
                f"{row['share']:.0%}",
                f"{row['bound']:.0%}",
                f"{row['block_bytes'] / 1024:.0f}",
                f"{row['weight_bytes'] / (1 << 20):.2f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*table)]
    out = [
        "  ".join(
            [
                *(c.ljust(w) for c, w in zip(row[:4], widths)),
                *(c.rjust(w) for c, w in zip(row[4:], widths[4:])),
            ]
        )
        for row in table
    ]
    wide = [row for row in rows if counted(row)]
    out.append(f"all weights in order: {rows[0]['stream_gigabytes_a_second']:.1f} GB/s")
    if wide:
        worst = min(wide, key=lambda row: row["share"])
        spent = sum(row["time_ms"] for row in wide)
        total = sum(row["sops"] / row["ceiling_gsops"] for row in wide) / 1e6 / spent
        out.append(
            f"{len(wide)} layers with >= {LEAST_CHANNELS} channels at >= {LEAST_RATE:.0%} events: {total:.0%}"
            f" of the ceiling over their {spent:.2f} ms, the worst {worst['share']:.0%} ({worst['name']})"
        )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description="Speed of each layer beside the core's own ceiling.")
    parser.add_argument(
        "--networks",
        type=choice(("alone", *networks.NAMES)),
        default=["alone", "vgg16", "resnet20"],
        metavar="NAMES",
        help=f"of alone, {', '.join(networks.NAMES)}",
    )
    parser.add_argument("--steps", type=positive, default=16, metavar="T")
    parser.add_argument(
        "--arithmetic",
        type=choice(("float32", "int8")),
        default=["float32", "int8"],
        metavar="NAMES",
        help="of float32, int8",
    )
    parser.add_argument("--rounds", type=positive, default=15, metavar="N")
    parser.add_argument("--core", type=int, default=cores[-1], choices=cores, help="default: the last")
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where built networks lie (default: EVSNN_BENCHMARK_CACHE, else .cache beside this file)",
    )
    parser.add_argument("--json", metavar="FILE", help="write everything measured to a file as well")
    options = parser.parse_args(arguments)
    cache = networks.cache_directory(options.cache)
    pin_threads()
    os.sched_setaffinity(0, {options.core})
    found = {"cpu": cpu_model(), "core": options.core, "n_steps": options.steps, "layers": {}}
    print(
        f"{found['cpu']}, core {options.core}, one thread, batch 1, T = {options.steps}; GSOP/s, medians of"
        f" {options.rounds} rounds"
    )
    for name in options.networks:
        if name != "alone":
            networks.build(name, cache)
        for arithmetic in options.arithmetic:
            rows = (
                measure_alone(options.steps, arithmetic, options.rounds)
                if name == "alone"
                else measure(name, options.steps, arithmetic, cache, options.rounds)
            )
            found["layers"][f"{name} {arithmetic}"] = rows
            print(f"\n{name}, {arithmetic}", *lines(rows), sep="\n", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
