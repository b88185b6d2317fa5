"""What the commands that run a network share: from the command line to a simulator that is ready.

A session loads the network and opens the samples, prints warnings about them, and prepares a simulator for
each T. Memory is announced before it is allocated, and samples are read once.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from .circuit.build import pair_bytes
from .circuit.quantized import integer_bytes
from .files.demo import demo
from .files.inputs import Inputs, open_inputs, range_of, range_warning
from .files.weights import load
from .network.network import Network, Samples
from .output.console import Progress, print_message
from .output.memory import PROCESS_BYTES, announce, announce_early
from .simulation import Simulator
from .startup import import_compiler

__all__ = ["Prepared", "Session"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A simulator that is ready.

    Parameters
    ----------
    simulator : Simulator
    images : (n, ...) array
        The samples as they are run at its T.
    labels : (n,) int64, optional
    times_ms : dict of str to float
        Milliseconds that its preparation took: "import", "plan", "compile".
    memory_bytes : int
        The memory of the process with all that was announced.
    """

    simulator: Simulator
    images: np.ndarray
    labels: np.ndarray | None
    times_ms: dict[str, float]
    memory_bytes: int


class Session:
    """A network and the samples that a command runs it on; a context manager.

    Parameters
    ----------
    options : Namespace
        `weights` and `input`, paths or None; `steps`, a tuple of int or None; `limit`, `seed`, `arithmetic`,
        `threads`.
    backend : {"auto", "numba", "reference"}

    Attributes
    ----------
    model : str
        Its name for people: the path, or "demo".
    network : Network
    inputs : Inputs
    n_steps : tuple of int
        Every T to run, in the given order.
    load_ms : float
    """

    def __init__(self, options: Namespace, backend: str = "auto"):
        self._options, self._backend = options, backend
        self._samples: Samples | None = None
        self._imported = False
        self._files = ExitStack()
        self.model = options.weights or "demo"
        started = time.perf_counter()
        self.network: Network = (
            load(options.weights, before=partial(announce_early, "network"))
            if options.weights is not None
            else demo()
        )
        self.load_ms = 1e3 * (time.perf_counter() - started)
        most = max(options.steps) if options.steps else None
        opened = open_inputs(
            self.network, options.input, limit=options.limit, seed=options.seed, n_steps=most
        )
        self.inputs: Inputs = self._files.enter_context(opened)
        if self.inputs.source == "noise":
            print_message(
                f"input: the model's file holds no samples, running on noise of seed {options.seed}"
            )
        self.n_steps = options.steps or (self.inputs.n_steps or self.network.n_steps,)
        self.inputs.require_steps(max(self.n_steps))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_) -> None:
        self._files.close()

    def prepared(self, n_steps: int, more: Callable[[Simulator], int] | None = None) -> Prepared:
        """A simulator for `n_steps`, ready to run the samples.

        The first call starts the compiler and reads the samples, once memory for them has been announced.

        Parameters
        ----------
        n_steps : int
        more : callable (simulator), optional
            Bytes of results beside those of one run of all samples.
        """
        self._take_range_from_samples()
        options = self._options
        announce_early("pairs of neurons", pair_bytes(self.network))
        if options.arithmetic == "int8":
            announce_early("integers", integer_bytes(self.network))
        simulator = Simulator(
            self.network,
            n_steps,
            arithmetic=options.arithmetic,
            coding=options.coding,
            threads=options.threads,
            backend=self._backend,
        )
        started = {"import": 0.0, "compile": 0.0} if self._imported else import_compiler(simulator)
        self._imported = True
        unread = {} if self._samples else {"inputs": self.inputs.n_bytes}
        results = simulator.result_bytes(self.inputs.n_samples) + (more(simulator) if more else 0)
        held = {"results": results, "process": PROCESS_BYTES[simulator.backend]}
        memory_bytes = announce(unread | simulator.memory_for(self.inputs.n_samples) | held)
        samples = self._read()
        with Progress(f"T = {n_steps}: preparing layers") as progress:
            times = simulator.prepare(progress=progress)
        return Prepared(
            simulator=simulator,
            images=self.inputs.cut(samples.images, n_steps),
            labels=samples.labels,
            times_ms={
                "import": started["import"] + times["import"],
                "plan": times["plan"],
                "compile": started["compile"] + times["compile"],
            },
            memory_bytes=memory_bytes,
        )

    def _read(self) -> Samples:
        """Read the samples, and warn if their scale looks wrong."""
        if self._samples is None:
            self._samples = self.inputs.read()
            warning = range_warning(self.network, self._samples.images)
            if warning:
                print_message(f"warning: {warning}")
        return self._samples

    def _take_range_from_samples(self) -> None:
        """Take the input's range, which integers need, from the samples if the file has none."""
        network = self.network
        known = network.input_range is not None or network.samples is not None
        if self._options.arithmetic != "int8" or known or network.input.encoding != "constant":
            return
        announce({"inputs": self.inputs.n_bytes})
        found = range_of(self._read().images)
        self.network = network.replace(input_range=found)
        print_message(
            "input: the model's file names no range for it, integers are scaled to the values found, {:g} to"
            " {:g}".format(*found)
        )
