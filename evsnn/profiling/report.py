"""The report of a profile: tables, JSON, speedscope's format, and a comparison with an earlier profile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal

import numpy as np

from ..digest import digest
from ..errors import RunError
from ..network.network import Network
from ..output.table import Column, Table, apportion
from ..result import Result
from ..simulation import Simulator
from ..text import as_bytes, as_count, as_shape
from .energy import MeasuredEnergy, estimate, estimate_ann
from .measure import L2_BYTES, Hint, LayerProfile, Profile
from .profile_files import SCHEMA_VERSION

__all__ = ["Report", "Seen", "Sweep", "digest_of", "seen_bytes", "seen_of"]

_RASTER_NEURONS = 48
_RASTER_STEPS = 1_024
_SEEN_SAMPLES = 16
_SAME = ("model_sha256", "n_steps", "arithmetic", "threads", "backend")
_SAME_HOST = ("cpu", "machine", "governor")


def digest_of(network: Network) -> str:
    """SHA-256 of all that decides what a network computes, without samples, names of classes and metadata."""
    return digest(network, without=frozenset({"samples", "classes", "metadata"}))


@dataclass(frozen=True)
class Sweep:
    """A run at another T: accuracy (None without labels), median latency, operations per sample."""

    n_steps: int
    accuracy: float | None
    p50_ms: float
    sops: float

    @classmethod
    def of(cls, result: Result) -> Sweep:
        return cls(
            result.n_steps, result.accuracy, float(np.median(result.latency_ms)), result.sops_per_sample
        )


@dataclass(frozen=True)
class Seen:
    """What the page shows of a layer's spikes.

    Parameters
    ----------
    name : str
    raster : list of (step, neuron)
        The spikes of some neurons, drawn evenly, in the first 1,024 steps of the first sample.
    n_drawn : int
        How many neurons were drawn.
    rates : list of float
        Rates over some samples: the shares of neurons in 20 equal bins from 0 to 1 spikes per step.
    """

    name: str
    raster: list[tuple[int, int]]
    n_drawn: int
    rates: list[float]


def seen_bytes(simulator: Simulator, n_samples: int) -> int:
    """Bytes that `seen_of` takes at most."""
    populations = simulator.circuit.populations
    neurons = sum(p.n_neurons for p in populations)
    drawn = 64 * len(populations) * _RASTER_NEURONS * min(simulator.n_steps, _RASTER_STEPS)
    counts = simulator.result_bytes(min(n_samples, _SEEN_SAMPLES), record=("spike_counts",))
    return simulator.result_bytes(1, record=("spikes",)) + 2 * counts + 16 * neurons + drawn


def seen_of(simulator: Simulator, images: np.ndarray, seed: int) -> list[Seen]:
    """The spikes of the first sample, and rates over a few."""
    first = simulator.run(images[:1], seed=seed, record=("spikes",))
    some = simulator.run(images[:_SEEN_SAMPLES], seed=seed, record=("spike_counts",))
    seen = []
    for layer, counted in zip(first.layers, some.layers):
        if layer.spikes is not None and counted.spike_counts is not None and layer.fires:
            trains = layer.spikes[0].reshape(first.n_steps, -1)
            drawn = np.unique(np.linspace(0, trains.shape[1] - 1, _RASTER_NEURONS).astype(int))
            steps, neurons = np.nonzero(trains[:_RASTER_STEPS, drawn])
            rates = np.abs(counted.spike_counts).reshape(some.n_samples, -1).mean(axis=0) / some.n_steps
            histogram = np.histogram(rates, 20, (0, 1))[0] / rates.size
            seen.append(
                Seen(
                    layer.name,
                    list(zip((steps + 1).tolist(), neurons.tolist())),
                    len(drawn),
                    histogram.tolist(),
                )
            )
    return seen


def require_same(old: Mapping, mine: Mapping, where: str, whose: str = "") -> None:
    """Refuse an earlier profile that differs in what `mine` holds.

    Raises
    ------
    RunError
        If one of these differs.
    """
    for name, expected in mine.items():
        if old.get(name) != expected:
            raise RunError(
                f"the earlier profile cannot be compared: its {whose}{name} differs",
                where=where,
                got=old.get(name),
                expected=expected,
                hint="compare like with like",
            )


@dataclass(frozen=True, eq=False)
class Report:
    """What `python -m evsnn.profile` says.

    Parameters
    ----------
    model : str
    network : Network
    inputs : str
    seed : int
    profile : Profile
    start_up_ms : mapping of str to float
        "import", "load", "plan", "compile", and "first": the first sample.
    memory_bytes : int
    hints : sequence of Hint
    deadline_ms : float, optional
    metered : MeasuredEnergy, optional
    sweep : tuple of Sweep
        One per T, ascending; the T that was profiled is among them.
    seen : list of Seen, optional
    old : mapping, optional
        An earlier profile, as JSON.
    """

    model: str
    network: Network
    inputs: str
    seed: int
    profile: Profile
    start_up_ms: Mapping[str, float]
    memory_bytes: int
    hints: Sequence[Hint]
    deadline_ms: float | None = None
    metered: MeasuredEnergy | None = None
    sweep: tuple[Sweep, ...] = ()
    seen: list[Seen] | None = None
    old: Mapping | None = None

    def compared_with(self, old: Mapping, where: str) -> Report:
        """The same report, compared with an earlier profile.

        Raises
        ------
        RunError
            If the earlier profile is of another model, number of steps, arithmetic, host or governor, or if
            one of both runs was throttled.
        """
        mine = self.facts()
        theirs, ours = old.get("host"), mine["host"]
        require_same(old, {name: mine[name] for name in _SAME}, where)
        require_same(
            theirs if isinstance(theirs, Mapping) else {},
            {name: ours[name] for name in _SAME_HOST},
            where,
            "host's ",
        )
        for throttling, whose in (
            (old.get("throttling"), "the earlier profile"),
            (list(self.profile.throttling), "this profile"),
        ):
            if throttling != []:
                raise RunError(
                    f"{whose} was throttled",
                    where=where,
                    got=str(throttling)[:160],
                    hint="cool the board or feed it better, and measure again",
                )
        layers = old.get("layers")
        if not isinstance(layers, list) or [
            layer.get("name") if isinstance(layer, dict) else None for layer in layers
        ] != [layer["name"] for layer in mine["layers"]]:
            raise RunError("the earlier profile has other layers", where=where, hint="measure it again")
        return replace(self, old=old)

    # ------------------------------------------------------------------ for people

    def tables(self, order: str = "run") -> list[Table]:
        """Layers and summary; a sweep, hints and the comparison, if there are any."""
        tables = [self.layer_table(order), Table.of_facts(self.summary())]
        if len(self.sweep) > 1:
            columns = (
                Column("T", "d"),
                Column("accuracy", ".4f"),
                Column("p50 ms/sample", ".3f"),
                Column("SOPs/sample", ".0f"),
            )
            tables.append(
                Table(columns, tuple((s.n_steps, s.accuracy, s.p50_ms, s.sops) for s in self.sweep))
            )
        if self.old is not None:
            tables.append(self.comparison())
        if self.hints:
            columns = (Column("hint for"), Column("because"), Column("what to do"), Column("may save", ".0%"))
            tables.append(
                Table(
                    columns, tuple((h.layer or "the run", h.evidence, h.advice, h.gain) for h in self.hints)
                )
            )
        return tables

    def layer_table(self, order: str) -> Table:
        """One row per layer, and one for the time outside layers.

        The last row is their sum, to the digit: the wall time per sample.
        """
        profile, result = self.profile, self.profile.result
        layers = (
            sorted(profile.layers, key=lambda layer: -layer.time_ms) if order == "time" else profile.layers
        )
        digits = 1 if result.sops_per_sample < 100_000 else 0
        times, total = apportion([*(layer.time_ms for layer in layers), profile.outside_ms], 3)
        shares, whole = apportion(
            [100 * t / profile.total_ms for t in (*(layer.time_ms for layer in layers), profile.outside_ms)],
            1,
        )
        events, n_events = apportion([layer.events for layer in layers], digits)
        sops, n_sops = apportion([layer.sops for layer in layers], digits)
        moved, n_moved = apportion([layer.bytes_moved / 1e6 for layer in layers], 3)
        columns = (
            Column("layer"),
            Column("projection"),
            Column("shape"),
            Column("calls", "d"),
            Column("thread ms/sample" if profile.workers > 1 else "ms/sample", ".3f"),
            Column("%", ".1f"),
            Column("sum %", ".1f"),
            Column("rate", ".3f"),
            Column("events/sample", f".{digits}f"),
            Column("SOPs/sample", f".{digits}f"),
            Column("ns/SOP", ".3f"),
            Column("GSOP/s", ".1f"),
            Column("MB moved/sample", ".3f"),
            Column("of ceiling", ".0%"),
        )
        rows: list[tuple[object, ...]] = []
        so_far = Decimal(0)
        for i, layer in enumerate(layers):
            so_far += shares[i]
            rows.append(
                (
                    layer.name,
                    layer.projection,
                    as_shape(layer.shape),
                    int(layer.calls),
                    times[i],
                    shares[i],
                    so_far,
                    layer.rate,
                    events[i],
                    sops[i],
                    layer.ns_per_sop,
                    layer.gsops,
                    moved[i],
                    layer.of_ceiling,
                )
            )
        rows.append(
            (
                "outside layers",
                "",
                "",
                None,
                times[-1],
                shares[-1],
                so_far + shares[-1],
                None,
                None,
                None,
                None,
                None,
                None,
                None,
            )
        )
        return Table(
            columns,
            tuple(rows),
            (
                "total",
                "",
                "",
                None,
                total,
                whole,
                None,
                result.mean_rate,
                n_events,
                n_sops,
                None,
                None,
                n_moved,
                None,
            ),
        )

    def summary(self) -> list[tuple[str, str]]:
        profile, result, host = self.profile, self.profile.result, self.profile.host
        latency, n, rounds = profile.percentiles(), result.n_samples, profile.round_ms
        facts = [
            (
                "model",
                (
                    f"{self.model}, T = {result.n_steps}, {result.arithmetic},"
                    f" {as_count(result.threads, 'thread')}, {result.backend}"
                ),
            ),
            (
                "input",
                (
                    f"{as_count(n, 'sample')}, {len(rounds)} rounds of {min(rounds):.2f} to {max(rounds):.2f}"
                    " ms; shown is the one of the median wall time"
                ),
            ),
            (
                "latency",
                ", ".join(f"{name} {value:.3f}" for name, value in latency.items())
                + f" ms per sample; {1e3 * n / profile.wall_ms:,.1f} samples per second",
            ),
        ]
        if self.deadline_ms is not None:
            facts.append(
                (
                    "deadline",
                    (
                        f"{self._misses():,} of {profile.latency_ms.size:,} samples took more than"
                        f" {self.deadline_ms:g} ms"
                    ),
                )
            )
        if result.accuracy is not None:
            facts.append(("accuracy", f"{100 * result.accuracy:.2f} %"))
        steady = profile.total_ms / profile.workers
        facts += [
            (
                "start-up",
                ", ".join(f"{name} {value:.0f}" for name, value in self.start_up_ms.items())
                + f" ms; steady {steady:.3f} ms per sample",
            ),
            (
                "memory",
                f"{as_bytes(self.memory_bytes)} predicted; weights {as_bytes(profile.weight_bytes)} packed",
            ),
            ("energy", self._energy_text()),
        ]
        if self.metered is not None:
            m = self.metered
            per = m.joules / (n * len(profile.round_ms)) * 1e3
            text = (
                f"{per:.3f} mJ per sample above idle ({m.mean_w:.3f} W, idle {m.idle_w:.3f} W, {m.n_readings}"
                " readings)"
            )
            facts.append(("measured", "; ".join([text, *m.warnings])))
        where = ", ".join(
            filter(
                None,
                [
                    host.cpu,
                    f"{host.n_cpus} CPUs",
                    ", ".join(host.features),
                    host.governor and f"governor {host.governor}",
                ],
            )
        )
        facts.append(("host", where))
        states = (
            [
                f"{s.mhz:.0f} MHz" if s.mhz else "",
                f"{s.temperature_c:.0f} C" if s.temperature_c is not None else "",
            ]
            if (s := profile.after)
            else []
        )
        facts.append(("afterwards", ", ".join(filter(None, states)) or "no sensor can be read here"))
        if profile.throttling:
            facts.append(("THROTTLED", "; ".join(profile.throttling)))
        return facts

    def comparison(self) -> Table:
        """The milliseconds of the earlier profile and of this one."""
        if self.old is None:
            raise RunError("there is no earlier profile to compare with")
        old = [float(layer["ms"]) for layer in self.old["layers"]]
        rows = [
            (layer.name, before, layer.time_ms, layer.time_ms / before if before else None)
            for layer, before in zip(self.profile.layers, old)
        ]
        before, now = float(self.old["total_ms"]), self.profile.total_ms
        rows.append(("outside layers", before - sum(old), self.profile.outside_ms, None))
        columns = (
            Column("layer"),
            Column("ms then", ".3f"),
            Column("ms now", ".3f"),
            Column("now / then", ".3f"),
        )
        return Table(columns, tuple(rows), ("total", before, now, now / before if before else None))

    # ------------------------------------------------------------------ for computers

    def json(self) -> str:
        """See docs/profile.md."""
        return json.dumps(self.facts(), allow_nan=False)

    def facts(self) -> dict:
        """The report as plain Python values."""
        profile, result = self.profile, self.profile.result
        facts = {
            "kind": "evsnn.profile",
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "model_sha256": digest_of(self.network),
            "input": self.inputs,
            "seed": self.seed,
            "n_steps": result.n_steps,
            "n_samples": result.n_samples,
            "n_rounds": len(profile.round_ms),
            "arithmetic": result.arithmetic,
            "threads": result.threads,
            "backend": result.backend,
            "accuracy": result.accuracy,
            "task": result.task,
            "predictions": None if result.predictions is None else result.predictions.tolist(),
            "started": profile.started,
            "ended": profile.ended,
            "round_ms": list(profile.round_ms),
            "wall_ms": profile.wall_ms,
            "workers": profile.workers,
            "total_ms": profile.total_ms,
            "outside_ms": profile.outside_ms,
            "latency_ms": profile.percentiles(),
            "deadline_ms": self.deadline_ms,
            "deadline_misses": None if self.deadline_ms is None else self._misses(),
            "start_up_ms": dict(self.start_up_ms),
            "memory_bytes": self.memory_bytes,
            "sops_per_sample": result.sops_per_sample,
            "spikes_per_sample": result.spikes_per_sample,
            "mean_rate": result.mean_rate,
            "layers": [_layer_facts(layer) for layer in profile.layers],
            "energy_estimate": self.energy(),
            "energy_measured": None if self.metered is None else asdict(self.metered),
            "hints": [asdict(hint) for hint in self.hints],
            "host": asdict(profile.host),
            "before": asdict(profile.before),
            "after": asdict(profile.after),
            "throttling": list(profile.throttling),
            "sweep": [asdict(s) for s in self.sweep],
            "workload": self.workload(),
        }
        return json.loads(json.dumps(facts))

    def workload(self) -> dict:
        """What is stored and what is computed, in plain quantities; operations are per sample.

        NeuroBench measures similar ones under its own names, by rules that these do not follow.
        """
        profile, result = self.profile, self.profile.result
        weights = profile.n_parameters
        return {
            "weight_bytes": profile.weight_bytes,
            "zero_weights": profile.n_zero_weights / weights if weights else 0.0,
            "accuracy": result.accuracy,
            "mean_rate": result.mean_rate,
            "macs_per_sample": sum(layer.macs for layer in profile.layers),
            "sops_per_sample": result.sops_per_sample,
            "dense_operations_per_sample": float(profile.dense_macs * result.n_steps),
        }

    def energy(self) -> dict:
        """Joules per sample by the model of `evsnn.profiling.energy`, an estimate; the ANN by the same."""
        profile, result = self.profile, self.profile.result
        fetched = (
            profile.weight_bytes if profile.weight_bytes > L2_BYTES else 0
        )  # else they stay in the cache
        cache = (
            sum(layer.gathered_bytes + layer.spike_bytes for layer in profile.layers) + profile.weight_bytes
        )
        snn = estimate(
            result.arithmetic,
            result.sops_per_sample,
            sum(layer.macs for layer in profile.layers),
            cache,
            fetched,
        )
        ann = estimate_ann(result.arithmetic, profile.dense_macs, fetched)
        return {
            "is_estimate": True,
            "spiking": snn,
            "spiking_total": sum(snn.values()),
            "ann": ann,
            "ann_total": sum(ann.values()),
        }

    def speedscope(self) -> str:
        """The layers of a sample as a profile for speedscope.app."""
        profile = self.profile
        frames = [
            {"name": f"T = {profile.result.n_steps}"},
            *({"name": f"{layer.name} ({layer.projection})"} for layer in profile.layers),
            {"name": "outside layers"},
        ]
        weights = [*(layer.time_ms for layer in profile.layers), max(0.0, profile.outside_ms)]
        return json.dumps(
            {
                "$schema": "https://www.speedscope.app/file-format-schema.json",
                "exporter": "evsnn",
                "name": self.model,
                "shared": {"frames": frames},
                "profiles": [
                    {
                        "type": "sampled",
                        "name": "a sample",
                        "unit": "milliseconds",
                        "startValue": 0,
                        "endValue": sum(weights),
                        "samples": [[0, i + 1] for i in range(len(weights))],
                        "weights": weights,
                    }
                ],
            }
        )

    def _misses(self) -> int:
        return int((self.profile.latency_ms > self.deadline_ms).sum())

    def _energy_text(self) -> str:
        facts = self.energy()
        parts = ", ".join(f"{name} {1e6 * joules:.1f}" for name, joules in facts["spiking"].items() if joules)
        return (
            f"estimate, not measured: {1e6 * facts['spiking_total']:.1f} uJ per sample ({parts}); the ANN by"
            f" the same model {1e6 * facts['ann_total']:.1f} uJ"
        )


def _layer_facts(layer: LayerProfile) -> dict:
    return {
        "name": layer.name,
        "projection": layer.projection,
        "shape": list(layer.shape),
        "calls": layer.calls,
        "ms": layer.time_ms,
        "events": layer.events,
        "spikes": layer.spikes,
        "rate": layer.rate,
        "sops": layer.sops,
        "macs": layer.macs,
        "ns_per_sop": layer.ns_per_sop,
        "gsops": layer.gsops,
        "gathered_bytes": layer.gathered_bytes,
        "weight_bytes": layer.weight_bytes,
        "spike_bytes": layer.spike_bytes,
        "ceiling_gsops": layer.ceiling_gsops,
        "of_ceiling": layer.of_ceiling,
    }
