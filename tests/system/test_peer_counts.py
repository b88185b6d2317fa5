"""Spike counts equal those of torch's convolutions with a soft-reset neuron, and SpikingJelly's.

Weights, biases and inputs are multiples of 2^-6 and few enough that every float32 sum is exact in any
order, so that equality is no luck of rounding. Skipped where torch is not installed.
"""

import numpy as np
import pytest

from evsnn import IF, Add, AvgPool2d, Concat, Conv2d, Flatten, Input, Linear, Network, Readout, simulate

torch = pytest.importorskip("torch")
F = torch.nn.functional

N_STEPS, N_SAMPLES = 8, 3
STEP = 2.0**-6


def soft_reset(current, threshold=1.0, v_init=0.0, leak=1.0):
    """(T, n, ...) spikes of amplitude `threshold` for (T, n, ...) currents: the neuron in torch's words."""
    v = torch.full_like(current[0], v_init)
    spikes = []
    for charge in current:
        v = leak * v + charge
        fired = (v >= threshold).to(v.dtype) * threshold
        v = v - fired
        spikes.append(fired)
    return torch.stack(spikes)


def spikingjelly(current, threshold=1.0):
    """The same by SpikingJelly's multi-step neuron, whose spikes are 0 and 1."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", exc_type=ImportError)
    node = neuron.IFNode(v_threshold=threshold, v_reset=None, step_mode="m").eval()
    with torch.inference_mode():
        return node(current) * threshold


def constant(current):
    return current.expand(N_STEPS, *current.shape)


def over_steps(operation, spikes, *arguments, **options):
    """A torch operation on (T, n, ...) as on one large batch."""
    return operation(spikes.flatten(0, 1), *arguments, **options).unflatten(0, spikes.shape[:2])


class Maker:
    """Draws arrays whose float32 sums are exact, as NumPy's for evsnn and torch's for its counterpart."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def images(self, *shape):
        return self.draw(-64, 65, N_SAMPLES, *shape)

    def weight(self, *shape):
        bound = 1 + int(96 / np.sqrt(np.prod(shape[1:])))
        return self.draw(-bound, bound + 1, *shape)

    def bias(self, n_out):
        return self.draw(-4, 24, n_out)

    def draw(self, low, high, *shape):
        values = (self.rng.integers(low, high, shape) * STEP).astype(np.float32)
        return values, torch.from_numpy(values.copy())


def check(layers, images, trains, current):
    """Compare counts of every population, and the readout's mean current."""
    result = simulate(Network(layers, shift="none"), images, n_steps=N_STEPS, record=("spike_counts",))
    populations = [layer for layer in result.layers if layer.fires]
    assert len(populations) == len(trains)
    for population, train in zip(populations, trains):
        counts = (train > 0).sum(0).numpy()
        assert counts.any() and (counts < N_STEPS).any(), (
            "the counterpart is silent or saturated: nothing is tested"
        )
        np.testing.assert_array_equal(
            population.spike_counts.reshape(counts.shape), counts, err_msg=population.name
        )
    np.testing.assert_array_equal(result.outputs, current.sum(0).numpy().astype(np.float64) / N_STEPS)


@pytest.mark.parametrize("fire", [soft_reset, spikingjelly], ids=["torch", "spikingjelly"])
@pytest.mark.parametrize("seed", range(3))
def test_pools_and_dense_layers(fire, seed):
    draw = Maker(seed)
    (image, x), (w1, tw1), (b1, tb1) = draw.images(2, 12, 10), draw.weight(24, 2, 3, 3), draw.bias(24)
    (w2, tw2), (b2, tb2), (w3, tw3), (b3, tb3) = (
        draw.weight(70, 24, 3, 3),
        draw.bias(70),
        draw.weight(33, 70 * 3 * 2),
        draw.bias(33),
    )
    w4, tw4 = draw.weight(5, 33)
    layers = [
        Input((2, 12, 10)),
        Conv2d(w1, b1, padding=1),
        IF(),
        AvgPool2d(2),
        Conv2d(w2, b2, padding=1),
        IF(2.0),
        AvgPool2d(2),
        Flatten(),
        Linear(w3, b3),
        IF(0.5),
        Linear(w4),
        Readout(),
    ]
    s1 = fire(constant(F.conv2d(x, tw1, tb1, padding=1)))
    s2 = fire(over_steps(F.conv2d, over_steps(F.avg_pool2d, s1, 2), tw2, tb2, padding=1), 2.0)
    s3 = fire(over_steps(F.linear, over_steps(F.avg_pool2d, s2, 2).flatten(2), tw3, tb3), 0.5)
    check(layers, image, [s1, s2, s3], over_steps(F.linear, s3, tw4))


@pytest.mark.parametrize("fire", [soft_reset, spikingjelly], ids=["torch", "spikingjelly"])
@pytest.mark.parametrize("seed", range(3))
def test_residual_blocks(fire, seed):
    """An identity, a scaled identity (a depthwise 1x1) and a pooled one with weights share membranes."""
    draw = Maker(seed)
    (image, x), (w0, tw0), (b0, tb0) = draw.images(3, 8, 8), draw.weight(16, 3, 3, 3), draw.bias(16)
    (w1, tw1), (b1, tb1), (w2, tw2), (scale, tscale) = (
        draw.weight(16, 16, 3, 3),
        draw.bias(16),
        draw.weight(16, 16, 3, 3),
        draw.draw(8, 64, 16, 1, 1, 1),
    )
    (w3, tw3), (b3, tb3), (short, tshort) = (
        draw.weight(40, 16, 3, 3),
        draw.bias(40),
        draw.weight(40, 16, 1, 1),
    )
    w4, tw4 = draw.weight(6, 40)
    layers = [
        Input((3, 8, 8)),
        Conv2d(w0, b0, padding=1),
        IF(name="a"),
        Conv2d(w1, b1, padding=1, name="c1"),
        Add(inputs=("c1", "a")),
        IF(name="b"),
        Conv2d(w2, None, padding=1, name="c2"),
        Conv2d(scale, groups=16, name="scaled", inputs="b"),
        Add(inputs=("c2", "scaled")),
        IF(name="c"),
        Conv2d(w3, b3, 2, 1, name="c3"),
        AvgPool2d(2, name="p", inputs="c"),
        Conv2d(short, name="short"),
        Add(inputs=("c3", "short")),
        IF(name="d"),
        AvgPool2d(),
        Flatten(),
        Linear(w4),
        Readout(),
    ]
    a = fire(constant(F.conv2d(x, tw0, tb0, padding=1)))
    b = fire(over_steps(F.conv2d, a, tw1, tb1, padding=1) + a)
    c = fire(over_steps(F.conv2d, b, tw2, padding=1) + over_steps(F.conv2d, b, tscale, groups=16))
    d = fire(
        over_steps(F.conv2d, c, tw3, tb3, 2, 1) + over_steps(F.conv2d, over_steps(F.avg_pool2d, c, 2), tshort)
    )
    check(layers, image, [a, b, c, d], over_steps(F.linear, d.mean(dim=(3, 4)), tw4))


@pytest.mark.parametrize("seed", range(3))
def test_groups_dilation_strides_and_concat(seed):
    draw = Maker(seed)
    (image, x), (w0, tw0), (b0, tb0) = draw.images(2, 9, 13), draw.weight(12, 2, 3, 2), draw.bias(12)
    (w1, tw1), (b1, tb1), (w2, tw2) = draw.weight(18, 4, 3, 3), draw.bias(18), draw.weight(12, 1, 3, 3)
    (w3, tw3), (b3, tb3) = draw.weight(7, 30, 3, 4), draw.bias(7)
    layers = [
        Input((2, 9, 13)),
        Conv2d(w0, b0, padding=(1, 0, 1, 1)),
        IF(name="a"),
        Conv2d(w1, b1, padding=2, dilation=2, groups=3),
        IF(name="b"),
        Conv2d(w2, padding=1, groups=12, inputs="a"),
        IF(0.25, v_init=0.125, name="c"),
        Concat(inputs=("b", "c")),
        Conv2d(w3, b3, (2, 3)),
        IF(name="d"),
        AvgPool2d(),
        Flatten(),
        Linear(np.eye(7)),
        Readout(),
    ]
    a = soft_reset(constant(F.conv2d(F.pad(x, (0, 1, 1, 1)), tw0, tb0)))
    b = soft_reset(over_steps(F.conv2d, a, tw1, tb1, padding=2, dilation=2, groups=3))
    c = soft_reset(over_steps(F.conv2d, a, tw2, padding=1, groups=12), 0.25, 0.125)
    d = soft_reset(over_steps(F.conv2d, torch.cat((b, c), dim=2), tw3, tb3, (2, 3)))
    check(layers, image, [a, b, c, d], d.mean(dim=(3, 4)))
