"""A second simulator, written straight from the specification: one neuron, one projection, one product at a
time.

It walks the network's own graph and shares no code with `evsnn.circuit.populations`,
`evsnn.circuit.reference` or the engine, so that folding pools, flattening, joining and adding is checked too.
float32 only, and slow: for networks of a few hundred neurons.
"""

from __future__ import annotations

import numpy as np

F32 = np.float32


class Naive:
    """Simulate `network` on one image (or one spike train, for inputs that spike)."""

    def __init__(self, network, image, n_steps, graded=False):
        self.network, self.n_steps, self.graded = network, n_steps, graded
        self.layers = network.by_name
        self.analog = network.input.encoding == "constant"
        self.image = image
        self.trains = {}  # by name of the layer, one array a step

    def run(self):
        """(spike trains by name, the membranes of all neurons by name)."""
        membranes = {}
        for layer in self.network.layers:
            if layer.kind == "maxpool2d":
                self.pool(layer)
            elif layer.kind == "if" or (layer.kind == "readout" and self.network.readout == "membrane"):
                membranes[layer.name] = self.neurons(layer)
        return {name: np.array(train) for name, train in self.trains.items()}, membranes

    def neurons(self, layer):
        """All steps of a layer of neurons, in its own time; its membranes at the end."""
        v = self.first_membranes(layer)
        if self.graded:
            return self.graded_neurons(layer, v)
        warm_up_steps = min(layer.warm_up_steps, self.n_steps) if layer.kind == "if" else 0
        counts = np.zeros(v.shape, int)
        for now in range(self.n_steps + warm_up_steps):
            if now < self.n_steps:
                self.now = now
                for at in np.ndindex(v.shape):
                    v[at] = self.charged(layer, at, v[at])
            if layer.kind == "readout" or now < warm_up_steps:
                continue
            spikes = np.zeros(v.shape, int)
            for at in np.ndindex(v.shape):
                threshold = self.threshold(layer, at[0])  # of pairs, at[0] is 2 x the channel + the half
                if v[at] >= threshold:
                    spikes[at] = 1
                    v[at] -= threshold
                elif (
                    layer.negative_threshold
                    and counts[at] > 0
                    and v[at] < F32(-layer.negative_threshold * float(threshold))
                ):
                    spikes[at] = -1
                    v[at] += threshold
            counts += spikes
            self.trains.setdefault(layer.name, []).append(spikes)
        return v

    def graded_neurons(self, layer, v):
        """All input, then one count for each neuron."""
        self.now = 0
        counts = np.zeros(v.shape, int)
        for at in np.ndindex(v.shape):
            v[at] = self.charged(layer, at, v[at])
            if layer.kind == "readout":
                continue
            threshold = float(self.threshold(layer, at[0]))
            levels = layer.levels or self.n_steps
            counts[at] = sum(v[at] >= F32(k * threshold) for k in range(1, levels + 1))
            v[at] -= F32(counts[at] * threshold)
        if layer.kind != "readout":
            self.trains[layer.name] = [counts]
        return v

    def pool(self, layer):
        """At each step, count the spikes of all inputs of each window; send what reaches the largest."""
        received = np.zeros(self.network.shapes[layer.inputs[0]], int)
        counts = np.zeros(self.network.shapes[layer.name], int)
        for now in range(1 if self.graded else self.n_steps):
            self.now = now
            for at in np.ndindex(received.shape):
                positive, negative = self.seen(layer.inputs[0], at)[0]
                received[at] += positive - negative
            spikes = np.zeros(counts.shape, int)
            for c, y, x in np.ndindex(spikes.shape):
                window = []
                for ky in range(layer.kernel[0]):
                    for kx in range(layer.kernel[1]):
                        at = (
                            c,
                            y * layer.stride[0] - layer.padding[0] + ky,
                            x * layer.stride[1] - layer.padding[1] + kx,
                        )
                        if 0 <= at[1] < received.shape[1] and 0 <= at[2] < received.shape[2]:
                            window.append(received[at])
                spikes[c, y, x] = max(window) - counts[c, y, x]
            counts += spikes
            self.trains.setdefault(layer.name, []).append(spikes)

    def own(self, layer, values, number):
        """A threshold or first membrane of a channel, or of one of the two neurons of a channel."""
        channel, half = divmod(number, 2) if layer.negative_slope is not None else (number, 0)
        return F32(
            values if not values.ndim else values[channel] if values.ndim == 1 else values[half, channel]
        )

    def threshold(self, layer, number):
        return self.own(layer, layer.v_threshold, number)

    def first_membranes(self, layer):
        shape = self.network.shapes[layer.name]
        pairs = layer.kind == "if" and layer.negative_slope is not None
        v = np.zeros((2 * shape[0], *shape[1:]) if pairs else shape, F32)
        if layer.kind == "if":
            for at in np.ndindex(v.shape):
                start = float(self.own(layer, layer.v_init, at[0]))
                if layer.shift and self.network.shift == "initial":
                    start += float(self.threshold(layer, at[0])) / 2
                v[at] = F32(start)
        return v

    def charged(self, layer, at, v):
        if layer.kind == "if" and layer.leak != 1:
            v = F32(v * F32(layer.leak)) + F32(0)
        gathered, channelwise, analog, bias = [], [], [], 0.0
        pairs = layer.kind == "if" and layer.negative_slope is not None
        opposite = -1 if pairs and at[0] % 2 else 1
        for terms, kind, offset in self.branches(layer.inputs[0], (at[0] // 2, *at[1:]) if pairs else at):
            if kind == "channelwise" and pairs:  # two neurons for one value: no longer one weight per channel
                kind = "gather"
            terms = [(value, F32(opposite * weight)) for value, weight in terms]
            {"gather": gathered, "channelwise": channelwise, "analog": analog}[kind].append(terms)
            bias += opposite * offset
        for terms in gathered + channelwise:
            for sign in (0, 1):  # spikes, then negative ones
                for counts, weight in terms:
                    if counts[sign]:
                        v = v + F32(F32(counts[sign]) * (-weight if sign else weight))
        current = F32(0)
        for terms in analog:
            for value, weight in terms:
                current = current + F32(F32(value) * weight)
        if layer.kind == "if" and layer.shift and self.network.shift == "bias":
            bias += float(self.threshold(layer, at[0])) / (2 * self.n_steps)
        constant = current + F32(bias)
        return v + (F32(self.n_steps) * constant if self.graded else constant)

    def branches(self, name, at):
        """(terms, kind, bias) of each branch that neuron `at` integrates through layer `name`."""
        layer = self.layers[name]
        if layer.kind == "add":
            for source in layer.inputs:
                yield from self.branches(source, at)
        elif layer.kind == "flatten" and self.carries_current(name):
            yield from self.branches(layer.inputs[0], (at[0], 0, 0))
        elif layer.kind in ("conv2d", "linear"):
            bias = float(layer.bias[at[0]]) if layer.bias is not None else 0.0
            groups = self.linear(layer, at) if layer.kind == "linear" else [self.conv(layer, at)]
            source = layer.inputs[0]
            depthwise = (
                layer.kind == "conv2d"
                and layer.groups == layer.weight.shape[0] == self.network.shapes[source][0]
                and self.plain(source)
            )
            for i, terms in enumerate(groups):
                yield terms, self.kind(source, depthwise), bias if i == 0 else 0.0
        else:  # spikes, or the input, are added to the membrane directly
            terms = [(value, F32(amplitude)) for value, amplitude in self.read(name, at)]
            yield terms, self.kind(name, self.plain(name)), 0.0

    def kind(self, source, channelwise):
        if self.analog and self.is_input(source):
            return "analog"
        return "channelwise" if channelwise else "gather"

    def carries_current(self, name):
        layer = self.layers[name]
        return layer.kind in ("conv2d", "linear", "add") or (
            layer.kind == "flatten" and self.carries_current(layer.inputs[0])
        )

    def is_input(self, name):
        layer = self.layers[name]
        return layer.kind == "input" or (
            layer.kind in ("avgpool2d", "flatten", "concat") and self.is_input(layer.inputs[0])
        )

    def plain(self, name):
        """Whether a layer shows one population as it is."""
        layer = self.layers[name]
        if layer.kind in ("flatten", "maxpool2d") or (layer.kind == "concat" and len(layer.inputs) == 1):
            return self.plain(layer.inputs[0])
        return layer.kind == "input" or (layer.kind == "if" and layer.negative_slope is None)

    def conv(self, layer, at):
        source = layer.inputs[0]
        _, height, width = self.network.shapes[source]
        n_out, n_in, kernel_height, kernel_width = layer.weight.shape
        group = at[0] // (n_out // layer.groups)
        terms = []
        for ky in range(kernel_height):
            for kx in range(kernel_width):
                y = at[1] * layer.stride[0] - layer.padding[0] + ky * layer.dilation[0]
                x = at[2] * layer.stride[1] - layer.padding[1] + kx * layer.dilation[1]
                if 0 <= y < height and 0 <= x < width:
                    for c in range(n_in):
                        for value, amplitude in self.read(source, (group * n_in + c, y, x)):
                            terms.append((value, F32(float(layer.weight[at[0], c, ky, kx]) * amplitude)))
        return terms

    def linear(self, layer, at):
        """The terms of each flattened source, in turn; vectors side by side are one."""
        groups, order = [], self.feature_order(layer.inputs[0])
        for features in order if self.flat(layer.inputs[0]) else [[f for group in order for f in group]]:
            terms = []
            for feature in features:
                for value, amplitude in self.read(layer.inputs[0], (feature,)):
                    terms.append((value, F32(float(layer.weight[at[0], feature]) * amplitude)))
            groups.append(terms)
        return groups

    def flat(self, name):
        """Whether a vector has a flattened map of more than one position in it."""
        layer = self.layers[name]
        if layer.kind == "concat":
            return any(self.flat(source) for source in layer.inputs)
        if layer.kind != "flatten":
            return False
        shape = self.network.shapes[layer.inputs[0]]
        return shape[1:] != (1, 1) if len(shape) == 3 else self.flat(layer.inputs[0])

    def feature_order(self, name):
        """Features of a vector in the order of their sum: source after source, (y, x, channel) ascending."""
        layer = self.layers[name]
        if layer.kind == "concat":
            groups, start = [], 0
            for source in layer.inputs:
                groups += [[start + f for f in group] for group in self.feature_order(source)]
                start += self.network.shapes[source][0]
            return groups
        if layer.kind == "flatten":
            if len(self.network.shapes[layer.inputs[0]]) == 1:
                return self.feature_order(layer.inputs[0])
            groups, start = [], 0
            _, height, width = self.network.shapes[layer.inputs[0]]
            for channels in self.sources(layer.inputs[0]):
                order = [
                    start + (c * height + y) * width + x
                    for y in range(height)
                    for x in range(width)
                    for c in range(channels)
                ]
                groups.append(order)
                start += channels * height * width
            return groups
        return [list(range(self.network.shapes[name][0]))]

    def sources(self, name):
        """Channels of each population that a map shows."""
        layer = self.layers[name]
        if layer.kind in ("concat", "avgpool2d", "maxpool2d"):
            return [c for source in layer.inputs for c in self.sources(source)]
        return [self.network.shapes[name][0]]

    def signs(self, name, at):
        spike = self.trains[name][self.now][at]
        return np.array([max(spike, 0), max(-spike, 0)], int)

    def received(self, at):
        """Spikes of the input: of a step, or of all."""
        return int(self.image[(slice(None), *at)].sum() if self.graded else self.image[(self.now, *at)])

    def read(self, name, at):
        """What `seen` gives, once for each neuron of the element: two of a pair, else one."""
        for half in range(2 if self.pairs(name, at) else 1):
            yield self.seen(name, at, half)

    def pairs(self, name, at):
        """Whether one element of a layer comes from pairs."""
        layer = self.layers[name]
        if layer.kind in ("if", "input"):
            return layer.kind == "if" and layer.negative_slope is not None
        shape = self.network.shapes[layer.inputs[0]]
        if layer.kind == "concat":
            channel = at[0]
            for source in layer.inputs:
                if channel < self.network.shapes[source][0]:
                    return self.pairs(source, (channel, *at[1:]))
                channel -= self.network.shapes[source][0]
        if layer.kind == "flatten" and len(shape) == 3:
            return self.pairs(layer.inputs[0], np.unravel_index(at[0], shape))
        return self.pairs(layer.inputs[0], (at[0], 0, 0)[: len(shape)])

    def seen(self, name, at, half=0):
        """Counts of spikes and of negative spikes, and the amplitude, of one neuron of an element of a layer.

        For the analog input they are (value, 1).
        """
        layer = self.layers[name]
        if layer.kind == "if" and layer.negative_slope is not None:
            at = (2 * at[0] + half, *at[1:])
            amplitude, channel = float(self.threshold(layer, at[0])), at[0] // 2
            slope = layer.negative_slope[channel] if layer.negative_slope.ndim else layer.negative_slope
            return self.signs(name, at), -float(slope) * amplitude if half else amplitude
        if layer.kind == "if":
            return self.signs(name, at), float(self.threshold(layer, at[0]))
        if layer.kind == "input":
            return (self.image[at], 1.0) if self.analog else (np.array([self.received(at), 0]), 1.0)
        source = layer.inputs[0]
        shape = self.network.shapes[source]
        if layer.kind == "maxpool2d":
            return self.signs(name, at), self.seen(source, (at[0], 0, 0))[1]
        if layer.kind == "flatten":
            return self.seen(source, np.unravel_index(at[0], shape) if len(shape) == 3 else at, half)
        if layer.kind == "concat":
            channel = at[0]
            for source in layer.inputs:
                if channel < self.network.shapes[source][0]:
                    return self.seen(source, (channel, *at[1:]), half)
                channel -= self.network.shapes[source][0]
        window = layer.window(shape)
        kernel, stride, padding = window.kernel, window.stride, window.padding
        total, amplitude = (
            (F32(0) if self.analog and self.is_input(source) else np.zeros(2, int)),
            self.seen(source, (at[0], 0, 0), half)[1],
        )
        for wy in range(kernel[0]):
            for wx in range(kernel[1]):
                y, x = at[1] * stride[0] - padding[0] + wy, at[2] * stride[1] - padding[1] + wx
                if 0 <= y < shape[1] and 0 <= x < shape[2]:
                    total = total + self.seen(source, (at[0], y, x), half)[0]
        return total, amplitude / (kernel[0] * kernel[1])
