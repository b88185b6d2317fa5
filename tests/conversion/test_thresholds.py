"""Activations and thresholds: against all activations at once, a normal sample, and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from evsnn import IF, Conv2d, Flatten, Input, InputError, Linear, ModelError, Network, Readout
from evsnn.conversion.balance.statistics import BINS, Activations, from_moments, measure
from evsnn.conversion.balance.thresholds import parse_rule, rate, thresholds
from evsnn.conversion.lowering.ann import Ann, forward

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(37, 2, 5, 4)).astype(np.float32)
WEIGHT = RNG.normal(size=(4, 2, 3, 3)).astype(np.float32)
WEIGHT[2] = 0  # with a negative bias: a dead channel


def make_ann(limit=None):
    layers = [
        Input((2, 5, 4)),
        Conv2d(WEIGHT, [0.1, 0.0, -1.0, 0.3], padding=1),
        IF(name="a"),
        Flatten(),
        Linear(RNG.normal(size=(3, 80)) / 9, [0.5, 0, 0]),
        IF(name="b"),
        Linear(np.eye(3)),
        Readout(name="out"),
    ]
    return Ann(Network(layers), clips={} if limit is None else {"a": np.array(limit, np.float32)})


def batches(images, size):
    return lambda: (images[i : i + size] for i in range(0, len(images), size))


def seen(ann, images):
    """Every activation of every layer, (channels, n): what `measure` must never hold."""
    found = {}
    forward(
        ann,
        images,
        len(images),
        lambda name, current, activation: found.update(
            {name: np.moveaxis(activation, 1, 0).reshape(activation.shape[1], -1).astype(np.float64)}
        ),
    )
    return found


def counted(rows):
    """The activations (channels, n) as `Activations`, by numpy's histogram."""
    maximum = np.maximum(rows.max(axis=1), 0)
    histogram = [
        np.histogram(row[row > 0], BINS, (0, top))[0] if top > 0 else np.zeros(BINS)
        for row, top in zip(rows, maximum)
    ]
    return Activations(maximum, np.array(histogram, float), float(rows.shape[1]))


# Statistics


@pytest.mark.parametrize("limit", [None, 0.75, [0.5, 1.0, 0.25, 100.0]])
def test_measured_is_what_all_activations_say(limit):
    ann = make_ann(limit)
    measured, rows = measure(ann, batches(IMAGES, 8)), seen(ann, IMAGES)
    assert measured.keys() == rows.keys() == {"a", "b", "out"}
    for name, found in measured.items():
        values = rows[name]
        assert np.array_equal(found.maximum, np.maximum(values.max(axis=1), 0)), name
        assert found.count == values.shape[1], name
        assert np.array_equal(found.histogram.sum(axis=1), (values > 0).sum(axis=1)), name
        edges = found.maximum[:, None] * np.arange(1, BINS) / BINS
        below = np.cumsum(found.histogram, axis=1)[:, :-1]
        for row, edge, n in zip(values, edges, below):
            row = np.sort(row[row > 0])
            assert (np.searchsorted(row, edge * (1 - 1e-6)) <= n).all() and (
                n <= np.searchsorted(row, edge * (1 + 1e-6), "right")
            ).all(), name
    assert measured["a"].dead.tolist() == [False, False, True, False]
    if limit is not None:
        assert (measured["a"].maximum <= np.broadcast_to(limit, 4)).all() and measured["a"].histogram[
            0, -1
        ] > 5, "what the limit cuts off stands at the limit"


@pytest.mark.parametrize("size", [1, 5, 36])
def test_batches_of_any_size_are_one(size):
    ann = make_ann()
    whole, parts = measure(ann, batches(IMAGES, 37)), measure(ann, batches(IMAGES, size))
    for name in whole:
        np.testing.assert_allclose(parts[name].maximum, whole[name].maximum, rtol=1e-6)
        assert parts[name].count == whole[name].count
        assert np.abs(np.cumsum(parts[name].histogram - whole[name].histogram, axis=1)).max() <= 2, (
            "an activation at an edge may change sides"
        )


def test_large_batches_are_counted_in_parts():
    """More rows than are counted at once."""
    images = np.random.default_rng(1).normal(size=(6, 1, 40, 40)).astype(np.float32)
    ann = Ann(
        Network(
            [
                Input((1, 40, 40)),
                Conv2d(np.ones((1, 1, 1, 1))),
                IF(name="a"),
                Flatten(),
                Linear(np.ones((1, 1600))),
                Readout(),
            ]
        )
    )
    found = measure(ann, batches(images, 6))["a"]
    assert (found.count, found.histogram.sum(), found.maximum[0]) == (9600, (images > 0).sum(), images.max())


def test_progress_ends_at_its_total():
    told = []
    measure(make_ann(), batches(IMAGES, 10), lambda *progress: told.append(progress))
    assert told == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 8), (6, 8), (7, 8), (8, 8)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_are_refused(value):
    images = IMAGES.copy()
    images[20, 1, 2, 2] = value
    with (
        pytest.raises(InputError, match="layer 'a': the ANN's activations are not finite"),
        np.errstate(invalid="ignore"),
    ):
        measure(make_ann(), batches(images, 8))


def test_no_inputs_are_refused():
    with pytest.raises(InputError, match="there are no calibration inputs"):
        measure(make_ann(), list)


def test_moments_are_a_normal_sample():
    mean, deviation, limit = (
        np.array([0.5, -1.0, 0.0, 3.0, 1.0]),
        np.array([1.0, 0.7, 2.0, 0.5, 1.0]),
        np.array([np.inf, np.inf, 3.0, np.inf, 0.25]),
    )
    found = from_moments(mean, deviation, limit)
    sample = np.clip(
        mean[:, None] + deviation[:, None] * np.random.default_rng(2).normal(size=(5, 200_000)),
        0,
        limit[:, None],
    )
    assert (found.maximum >= sample.max(axis=1) * 0.99).all() and (found.maximum <= limit).all()
    assert found.count == 1 and (found.histogram >= 0).all()
    np.testing.assert_allclose(found.histogram.sum(axis=1), (sample > 0).mean(axis=1), atol=0.005)
    for row, top, histogram in zip(sample, found.maximum, found.histogram):
        shares = np.histogram(row[row > 0], BINS, (0, top))[0] / len(row)
        np.testing.assert_allclose(np.cumsum(histogram), np.cumsum(shares), atol=0.005)
    np.testing.assert_allclose((found.histogram * found.centres).sum(axis=1), sample.mean(axis=1), atol=0.01)


def test_moments_of_channels_that_never_fire_or_never_vary():
    found = from_moments([-7.0, 2.0, 0.0], [1.0, 0.0, 0.0])
    assert found.dead.tolist() == [True, False, False] and not found.histogram[0].any()
    assert found.maximum[1] == pytest.approx(2) and found.histogram[1, -1] == pytest.approx(1)


# Rules


def test_rules_are_read():
    rules = {
        "max": ("max", 2.0),
        "percentile": ("percentile", 99.9),
        "percentile:100": ("percentile", 100.0),
        "percentile:0.1": ("percentile", 0.1),
    }
    rules |= {
        "mse": ("mse", 2.0),
        "error": ("error", 2.0),
        "error:3": ("error", 3.0),
        "error:16": ("error", 16.0),
    }
    assert {rule: parse_rule(rule) for rule in rules} == rules


@pytest.mark.parametrize(
    "rule",
    [
        "percentile:",
        "percentile:0",
        "percentile:-1",
        "percentile:100.1",
        "percentile:nan",
        "percentile:inf",
        "percentile:p",
        "percentile:9:9",
        "error:",
        "error:0.5",
        "error:99",
        "error:nan",
        "max:3",
        "max:",
        "mse:2",
        "mse:0",
        "",
        ":",
        "Max",
        " max",
        "auto",
        None,
        99.9,
    ],
)
def test_rules_that_are_none_are_refused(rule):
    with pytest.raises(ModelError, match="unknown threshold rule: got "):
        parse_rule(rule)


def test_granularities_that_are_none_are_refused():
    with pytest.raises(ModelError, match="unknown granularity: got 'neuron', expected layer or channel"):
        thresholds(counted(np.ones((1, 1))), "max", 4, "neuron")


# Thresholds


@pytest.mark.parametrize("n_steps", [1, 3, 8])
def test_rate_is_what_a_neuron_sends(n_steps):
    """Step by step, in numbers that are exact."""
    for v_threshold in (0.5, 1.0, 4.0):
        activation = np.arange(-16, 97) / 16
        v, sent = np.full(activation.shape, v_threshold / 2), np.zeros(activation.shape)
        for _ in range(n_steps):
            v += activation
            fired = v >= v_threshold
            v -= v_threshold * fired
            sent += fired
        np.testing.assert_allclose(rate(activation, v_threshold, n_steps), v_threshold * sent / n_steps)


LAYER = np.maximum(
    np.random.default_rng(3).gamma(1.2, size=(5, 6007)) * np.array([1.0, 0.3, 2.0, 0.05, 1.0])[:, None]
    - np.array([0.2, 0, 1, 0, 9.0])[:, None],
    0,
)
"""Channels of several scales, the last nearly dead."""


def rows_of(granularity):
    return LAYER if granularity == "channel" else LAYER.reshape(1, -1)


def found_for(rule, n_steps=8, granularity="channel", **options):
    found = thresholds(counted(LAYER), rule, n_steps, granularity, **options)
    assert found.shape == (() if granularity == "layer" else (5,))
    return found.reshape(-1)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_max_is_the_largest_activation(granularity):
    assert np.array_equal(
        found_for("max", granularity=granularity),
        np.maximum(rows_of(granularity).max(axis=1), LAYER.max() / 1000),
    )


@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("percentile", [100, 99.9, 99, 75, 30])
def test_percentile_is_a_quantile(percentile, granularity):
    """Zeros count. The upper edge of the part in which the quantile lies."""
    for row, found in zip(
        rows_of(granularity), found_for(f"percentile:{percentile}", granularity=granularity)
    ):
        part = row.max() / BINS
        joined = (
            1 if granularity == "layer" else 0
        )  # another part where channels of several scales are joined
        excess = found - np.quantile(row, percentile / 100, method="inverted_cdf")
        assert -joined * part - 1e-9 <= excess <= part * (1 + joined) + 1e-9 or found == pytest.approx(
            LAYER.max() / 1000
        )


@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("rule, power", [("mse", 2), ("error:3", 3), ("error:1", 1)])
@pytest.mark.parametrize("n_steps", [2, 8, 32])
def test_least_error_is_what_brute_force_finds(n_steps, rule, power, granularity):
    """Over a grid four times as fine, and on the activations themselves."""
    for row, found in zip(rows_of(granularity), found_for(rule, n_steps, granularity)):
        if row.max() < LAYER.max() / 50:
            continue  # the floor's

        def error(v, row=row):
            return (
                np.abs(v / n_steps * np.clip(np.floor(row * n_steps / v + 0.5), 0, n_steps) - row) ** power
            ).sum()

        best = min(map(error, row.max() * np.linspace(0.08, 1, 185)))
        assert best > 0 and error(found) <= 1.03 * best


def test_large_powers_let_less_saturate():
    found = [found_for(rule, 4)[:3] for rule in ("error:1", "mse", "error:3", "error:8", "max")]
    assert all((one < other).all() for one, other in zip(found, found[1:]))


def test_few_steps_want_low_thresholds():
    found = [found_for("mse", n_steps)[:3] for n_steps in (2, 8, 32, 256)]
    assert all((one < other).all() for one, other in zip(found, found[1:]))


@pytest.mark.parametrize("rule", ["max", "percentile:99", "mse", "error:3"])
def test_no_threshold_passes_the_limit(rule):
    for n_steps in (1, 4, 64):
        limit = np.array([0.5, 0.1, 9.0, 9.0, 9.0])
        free = found_for(rule, n_steps)
        assert (
            np.array_equal(found_for(rule, n_steps, limit=limit), np.minimum(free, limit)) and free[0] > 0.5
        )
        assert found_for(rule, n_steps, "layer", limit=0.09)[0] == 0.09
        joined = thresholds(counted(LAYER), rule, n_steps, "layer", limit)
        assert np.array_equal(joined, np.minimum(found_for(rule, n_steps, "layer"), limit)), (
            "channels keep limits of their own"
        )
        assert (found_for(rule, n_steps, limit=0.01) == np.minimum(free, 0.01)).all()


@pytest.mark.parametrize("rule", ["max", "percentile:99", "mse"])
def test_channels_that_hardly_fire_get_a_floor(rule):
    rows = np.array([[0.0, 8.0, 4.0], [0.0, 0.0, 1e-6], [0.0, 0.0, 0.0]])
    found = thresholds(counted(rows), rule, 8)
    assert found[0] > 1 and found[1] == found[2] == 0.008


@pytest.mark.parametrize("rule", ["max", "percentile:99", "mse", "error:3"])
def test_layers_that_are_never_active_get_one(rule):
    silent = counted(np.zeros((3, 10)))
    assert (
        thresholds(silent, rule, 8).tolist() == [1, 1, 1]
        and thresholds(silent, rule, 8, "layer").tolist() == 1
    )


@pytest.mark.parametrize("rule", ["max", "percentile:99", "mse", "error:3"])
def test_equal_channels_are_one_layer(rule):
    rows = np.repeat(LAYER[:1], 3, axis=0)
    assert (thresholds(counted(rows), rule, 8) == thresholds(counted(rows), rule, 8, "layer")).all()


@pytest.mark.parametrize("rule", ["max", "percentile:99", "mse", "error:3"])
def test_thresholds_scale_with_activations(rule):
    np.testing.assert_allclose(thresholds(counted(1024 * LAYER), rule, 8), 1024 * found_for(rule), rtol=1e-12)
