"""Where the time of a run goes, layer by layer, up to the wall time; and hints that follow from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ..engine.ceiling import measured_ceiling
from ..engine.plan import MaxPoolPlan, PopulationPlan
from ..network.inventory import layer_facts
from ..network.layers import Conv2d, Linear
from ..result import LayerResult, Result
from ..simulation import Simulator
from .host import Host, HostState, changes

__all__ = ["L2_BYTES", "Hint", "LayerProfile", "Profile", "hints_of", "measure"]

LEAST_ROUNDS = 3
LEAST_GAIN, MOST_HINTS = 0.02, 8
L2_BYTES = 1 << 20
"""The second-level cache of a Cortex-A72 and others: weights that fit stay there from sample to sample."""
_ELEMENT_BYTES = {"int8": 1, "float32": 4}


@dataclass(frozen=True)
class LayerProfile:
    """What one population takes per sample.

    Parameters
    ----------
    name, projection : str
    shape : tuple of int
    calls : float
        How often its kernel ran: the number of blocks of steps.
    time_ms : float
        The time of a thread, in milliseconds.
    events, spikes, sops, macs : float
        As for `evsnn.LayerResult`.
    rate : float, optional
        Spikes per neuron and step; None for a readout that never fires.
    gathered_bytes : float
        The bytes of weight rows that were added, event by event, mostly from a cache.
    weight_bytes : int
        Packed weights and parameters, which are fetched once per sample.
    spike_bytes : float
        The bytes of masks and event queues that were written and read.
    ceiling_gsops : float, optional
        10^9 additions per second that this core reaches for rows of a block as large as the layer's tile.
    """

    name: str
    projection: str
    shape: tuple[int, ...]
    calls: float
    time_ms: float
    events: float
    spikes: float
    sops: float
    macs: float
    rate: float | None
    gathered_bytes: float
    weight_bytes: int
    spike_bytes: float
    ceiling_gsops: float | None

    @property
    def bytes_moved(self) -> float:
        return self.gathered_bytes + self.weight_bytes + self.spike_bytes

    @property
    def gsops(self) -> float | None:
        """10^9 weight additions per second."""
        return self.sops / self.time_ms / 1e6 if self.sops and self.time_ms else None

    @property
    def ns_per_sop(self) -> float | None:
        return 1e6 * self.time_ms / self.sops if self.sops else None

    @property
    def of_ceiling(self) -> float | None:
        """Its speed as a share of the ceiling."""
        return self.gsops / self.ceiling_gsops if self.gsops and self.ceiling_gsops else None


@dataclass(frozen=True)
class Hint:
    """Something that could make the run faster.

    Parameters
    ----------
    layer : str
        Its name; "" for the whole network.
    evidence, advice : str
        What was seen, and what to do.
    gain : float
        The share of the time that it is expected to save.
    """

    layer: str
    evidence: str
    advice: str
    gain: float


@dataclass(frozen=True, eq=False)
class Profile:
    """A run that was measured in several rounds.

    Parameters
    ----------
    result : Result
        The result of the round with the median wall time.
    layers : tuple of LayerProfile
        The layers in that round.
    wall_ms : float
        The wall time of that round.
    workers : int
        Threads that ran samples side by side.
    round_ms : tuple of float
        Wall time of each round.
    latency_ms : (n,) float64
        The latencies of all samples of all rounds.
    started, ended : float
        When the rounds began and ended, in seconds since the epoch, by the system's clock.
    seconds : float
        The time between them, by a clock that is never set.
    host : Host
    before, after : HostState
    throttling : tuple of str
        The signs that the core was slowed down.
    n_parameters, n_zero_weights, dense_macs : int
        Of the ANN; multiply-adds are per sample.
    weight_bytes : int
        The bytes of packed weights.
    """

    result: Result
    layers: tuple[LayerProfile, ...]
    wall_ms: float
    workers: int
    round_ms: tuple[float, ...]
    latency_ms: np.ndarray = field(repr=False)
    started: float
    ended: float
    seconds: float
    host: Host
    before: HostState
    after: HostState
    throttling: tuple[str, ...]
    n_parameters: int
    n_zero_weights: int
    dense_macs: int
    weight_bytes: int

    @property
    def total_ms(self) -> float:
        """Thread time per sample: the wall time multiplied by the threads that shared it."""
        return self.wall_ms * self.workers / self.result.n_samples

    @property
    def outside_ms(self) -> float:
        """The part of `total_ms` that is not spent in layers: encoding, bookkeeping, waiting."""
        return self.total_ms - sum(layer.time_ms for layer in self.layers)

    def percentiles(self) -> dict[str, float]:
        return {f"p{p}": float(np.percentile(self.latency_ms, p)) for p in (50, 90, 99)}


def measure(
    simulator: Simulator,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    seconds: float,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Run all samples again and again, for a number of seconds and at least `LEAST_ROUNDS` times.

    The engine itself measures the times of layers in every run, profiled or not.

    Parameters
    ----------
    simulator : Simulator
    images, labels, seed
        As for `evsnn.simulate`.
    seconds : float
        The rounds begin within this time.
    progress : callable (done, total), optional

    Returns
    -------
    Profile
    """
    # What happens only once is not to be measured.
    simulator.run(images[:1], None if labels is None else labels[:1], seed=seed)
    before, host = HostState.read(), Host.read()
    rounds: list[tuple[float, Result]] = []
    started, began = time.time(), time.perf_counter()
    while len(rounds) < LEAST_ROUNDS or time.perf_counter() - began < seconds:
        now = time.perf_counter()
        result = simulator.run(images, labels, seed=seed)
        if rounds:  # outputs are those of the first round; the others' are not kept
            first = rounds[0][1]
            result = replace(
                result,
                outputs=first.outputs,
                outputs_at=first.outputs_at,
                named_outputs=first.named_outputs,
            )
        rounds.append((1e3 * (time.perf_counter() - now), result))
        if progress:
            progress(min(int(1e3 * (time.perf_counter() - began)), int(1e3 * seconds)), int(1e3 * seconds))
    ended, elapsed, after = time.time(), time.perf_counter() - began, HostState.read()
    wall_ms, result = sorted(rounds, key=lambda one: one[0])[(len(rounds) - 1) // 2]
    plans = simulator.plan.populations
    layers = tuple(_layer(layer, plan, result, simulator) for layer, plan in zip(result.layers, plans))
    facts, weights = (
        layer_facts(simulator.network),
        [layer.weight for layer in simulator.network.layers if isinstance(layer, (Conv2d, Linear))],
    )
    return Profile(
        result,
        layers,
        wall_ms,
        simulator.threads if simulator.backend == "numba" and simulator.threads <= len(images) else 1,
        tuple(ms for ms, _ in rounds),
        np.concatenate([one.latency_ms for _, one in rounds]),
        started,
        ended,
        elapsed,
        host,
        before,
        after,
        changes(before, after),
        sum(layer.n_parameters for layer in facts),
        sum(int(w.size - np.count_nonzero(w)) for w in weights),
        sum(layer.macs for layer in facts),
        sum(p.weight_bytes for p in plans if isinstance(p, PopulationPlan)),
    )


def _layer(
    layer: LayerResult, plan: PopulationPlan | MaxPoolPlan, result: Result, simulator: Simulator
) -> LayerProfile:
    n, block_steps = result.n_samples, simulator.plan.block_steps
    blocks = -(-result.n_steps // block_steps)
    common = (
        layer.name,
        layer.projection,
        layer.shape,
        float(blocks),
        layer.time_ms / n,
        layer.n_events / n,
        layer.n_spikes / n,
        layer.sops / n,
        layer.macs / n,
    )
    rate = result.rate(layer) if layer.fires else None
    if isinstance(plan, MaxPoolPlan):
        return LayerProfile(
            *common,
            rate,
            0.0,
            0,
            8.0 * plan.words * result.n_steps * (plan.positions + plan.in_positions),
            None,
        )
    element = _ELEMENT_BYTES[plan.weight_type]
    sources = sum(
        s.shape[1] * s.shape[2] * -(-s.shape[0] // 64) * 8 * result.n_steps
        for s in plan.population.projections
    )
    queues = layer.n_events / n * plan.event_bytes * (1 + plan.n_tiles)
    own = plan.mask_bytes(result.n_steps) * (plan.population.fires + plan.population.has_negative_spikes)
    block_bytes = plan.tile_rows * plan.lanes * element
    ceiling = (
        measured_ceiling(result.arithmetic, block_bytes)
        if layer.sops and block_bytes and simulator.backend == "numba"
        else None
    )
    return LayerProfile(
        *common, rate, layer.sops / n * element, plan.weight_bytes, float(sources + queues + own), ceiling
    )


def hints_of(profile: Profile) -> list[Hint]:
    """What the numbers suggest, with the largest expected gain first."""
    hints, total, result = [], profile.total_ms, profile.result
    for layer in profile.layers:
        share = layer.time_ms / total
        if share < 0.05:
            continue
        where = f"{share:.0%} of the time"
        if result.arithmetic == "float32" and layer.of_ceiling is not None:
            gain = share * (1 - 1 / 3) if layer.weight_bytes > L2_BYTES or layer.sops > 1e6 else share * 0.3
            size = (
                f", {layer.weight_bytes / 1e6:.1f} MB of weights per sample"
                if layer.weight_bytes > L2_BYTES
                else ""
            )
            hints.append(
                Hint(
                    layer.name,
                    f"{where}, {layer.gsops:.1f} GSOP/s in float32{size}",
                    "int8 reads a quarter of the bytes: --arithmetic int8",
                    gain,
                )
            )
        if layer.rate is not None and layer.rate > 0.25:
            gain = share * (1 - 0.25 / layer.rate)
            hints.append(
                Hint(
                    layer.name,
                    f"{where}, rate {layer.rate:.2f}",
                    "a higher threshold, or fewer steps, sends fewer spikes to the layer behind",
                    gain,
                )
            )
        if layer.macs > layer.sops:
            advice = (
                "a multiply-add for each weight and pixel, once per sample: fewer channels or a stride in the"
                " first layer"
            )
            hints.append(
                Hint(
                    layer.name,
                    f"{where}, {layer.macs:,.0f} multiply-adds of the analog input",
                    advice,
                    share * 0.5,
                )
            )
        if (
            layer.of_ceiling is not None
            and layer.of_ceiling < 0.25
            and layer.weight_bytes > L2_BYTES
            and result.n_samples > 1
            and result.arithmetic == "int8"
        ):
            evidence = (
                f"{where}, {layer.of_ceiling:.0%} of the ceiling, {layer.weight_bytes / 1e6:.1f} MB of"
                " weights fetched per sample"
            )
            hints.append(
                Hint(
                    layer.name,
                    evidence,
                    "the layer waits for memory: fewer output channels, or pooling before it",
                    share * 0.3,
                )
            )
    outside = profile.outside_ms / total
    if outside > 0.2:
        advice = "the layers are small beside what every sample costs: nothing in them is worth tuning"
        advice = (
            "samples are small: threads help little, fewer of them wait less"
            if profile.workers > 1
            else advice
        )
        hints.append(Hint("", f"{outside:.0%} of the time is spent outside layers", advice, outside / 2))
    if profile.host.governor not in (None, "performance"):
        hints.append(
            Hint(
                "",
                f"the governor is {profile.host.governor}",
                "performance keeps the frequency up: a short run sees the slow start",
                0.1,
            )
        )
    if profile.throttling:
        hints.append(
            Hint(
                "", "; ".join(profile.throttling), "cool the board or feed it better, and measure again", 0.3
            )
        )
    return sorted((hint for hint in hints if hint.gain >= LEAST_GAIN), key=lambda hint: -hint.gain)[
        :MOST_HINTS
    ]
