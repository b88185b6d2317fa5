"""Running a network: every run, by the engine or by the reference, starts here."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property, partial
from threading import Event, Lock, get_ident
from typing import TYPE_CHECKING

import numpy as np

from .arguments import checked_labels, checked_record, checked_record_steps, checked_seed, checked_threads
from .circuit import reference
from .circuit.build import build_circuit
from .circuit.encoding import check_images, encode, poisson
from .circuit.populations import Circuit, MaxPool
from .circuit.quantized import QuantizedNetwork, quantize
from .digest import digest
from .engine.plan import Plan, plan
from .errors import InputError, RunError
from .files.inputs import range_warning
from .network.network import Network
from .network.step_parameters import ReadOnly
from .result import Result
from .state import State
from .tally import Tally, result_bytes

if TYPE_CHECKING:
    from .engine.state import State as EngineState
    from .engine.workspace import Engine, Workspace

__all__ = ["ARITHMETICS", "BACKENDS", "Simulator", "simulate"]

ARITHMETICS = ("float32", "int8")
BACKENDS = ("auto", "numba", "reference")

_PART_BYTES = 2_600
"""Python objects of a runner, for each source of a projection beyond `_FEW_PARTS`; measured."""

_FEW_PARTS = 100

Progress = Callable[[int, int], None]

_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, TypeError, ValueError)
"""What the import of numba or llvmlite raises if they do not fit this Python, NumPy or CPU."""


_NO_GRADED = "the engine does not compute graded spikes yet; the NumPy reference runs, slowly"


def simulate(
    network: Network,
    images: np.ndarray,
    *,
    n_steps: int | None = None,
    record_steps: Iterable[int] | None = None,
    shift_steps: int | None = None,
    arithmetic: str = "float32",
    coding: str | None = None,
    threads: int | None = None,
    labels: np.ndarray | None = None,
    seed: int = 0,
    first: int = 0,
    record: Iterable[str] = (),
    backend: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Run a network on images.

    If their scale looks wrong for the network, `warnings.warn` says so; a `Simulator` does not look at it.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network to run; one in integers is run as it is.
    images : (n, *input_shape) real
        In the network's own scale. For networks that read events: (n, n_steps, *input_shape) of 0 and 1.
    n_steps : int, optional
        Time steps T, 1 to 65536. None: the network's own.
    record_steps : iterable of int, optional
        Steps from 1 to T after which outputs are recorded in `Result.outputs_at`, each once, in any order. If
        a layer has a warm-up, only T is possible. The shift V_th/2T and the integers of int8 stay those of
        the whole run.
    shift_steps : int, optional
        T of the shift V_th/2T, if it is not the run's T; only for networks whose shift is "bias".
    arithmetic : {"float32", "int8"}
        "int8": weights of 8 bits and exact integer membranes, see `evsnn.quantize`. It needs the network's
        `input_range` or samples.
    coding : {"steps", "graded"}, optional
        None: the network's own. "steps": neurons send a spike per step, one at most. "graded": a neuron takes
        in all of its input, and then sends its count of 0 to T once; T is then the number of levels, at most
        255, and the network equals an ANN whose activations have ceil(log2(T + 1)) bits. Negative spikes and
        warm-ups have no part in it. The NumPy reference computes it, slowly; the engine does not yet.
    threads : int, optional
        Threads that share the work, 1 to 1024. None: as many as processors that this process may use.
    labels : (n,) integers, optional
        The right classes, 0 to n_classes - 1; only for networks whose task is to classify.
    seed : int
        The seed of the Poisson encoding, at least 0.
    first : int
        The number of the first image in its set, from 0 on: Poisson spikes are drawn from the seed and the
        sample's number, so that parts of a set run one after another give what the whole set gives.
    record : iterable of {"spike_counts", "v_mem", "spikes"}
        What to keep of every layer, see `LayerResult`.
    backend : {"auto", "numba", "reference"}
        "auto": the event-driven engine if it can run here, else the NumPy reference. Both give the same bits.
    progress : callable (done, total), optional
        It is called after each sample.

    Returns
    -------
    Result
        Outputs, counts and times of all samples.

    Raises
    ------
    RunError
        If an option is out of range, the engine cannot run here, or outputs are not finite.
    InputError
        If images or labels do not fit the network.

    Examples
    --------
    >>> result = evsnn.simulate(net, images, n_steps=8, labels=labels)
    >>> result.outputs.shape == (len(images), net.n_classes)
    True
    >>> integers = evsnn.simulate(net, images, n_steps=8, arithmetic="int8")
    >>> integers.arithmetic
    'int8'
    """
    simulator = Simulator(
        network,
        n_steps,
        shift_steps=shift_steps,
        arithmetic=arithmetic,
        coding=coding,
        threads=threads,
        backend=backend,
    )
    result = simulator.run(
        images,
        labels=labels,
        record_steps=record_steps,
        record=record,
        seed=seed,
        first=first,
        progress=progress,
    )
    warning = range_warning(simulator.network, np.asarray(images))
    if warning:
        warnings.warn(warning, stacklevel=2)
    return result


class Simulator:
    """A network that is ready to run for one number of steps.

    Making a simulator only plans: `memory_bytes` says what `prepare` will allocate. `run` and `start` call
    `prepare` if that has not been done.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network to run; one in integers is run as it is.
    n_steps, shift_steps, arithmetic, coding, threads, backend
        As for `simulate`.

    Attributes
    ----------
    backend : {"numba", "reference"}
        The one that runs.
    backend_note : str
        Why it is not the compiled engine; empty if it is.
    start_up_ms : dict of str to float
        Milliseconds spent on planning and compiling so far: "import", "plan" and "compile".

    Raises
    ------
    RunError
        If an option is out of range, or the engine cannot run here.

    Examples
    --------
    >>> simulator = evsnn.Simulator(net, 8, threads=1)
    >>> all(n_bytes > 0 for n_bytes in simulator.memory_bytes.values())
    True
    >>> simulator.run(images).n_steps
    8
    """

    def __init__(
        self,
        network: Network | QuantizedNetwork,
        n_steps: int | None = None,
        *,
        shift_steps: int | None = None,
        arithmetic: str = "float32",
        coding: str | None = None,
        threads: int | None = None,
        backend: str = "auto",
    ):
        started = time.perf_counter()
        if not isinstance(network, (Network, QuantizedNetwork)):
            raise RunError(
                "this is not a network",
                got=type(network).__name__,
                expected="a Network",
                hint="load a file with evsnn.load",
            )
        if backend not in BACKENDS:
            raise RunError("unknown backend", got=repr(backend), expected=", ".join(BACKENDS))
        if arithmetic not in ARITHMETICS:
            raise RunError("unknown arithmetic", got=repr(arithmetic), expected=" or ".join(ARITHMETICS))
        self.threads = checked_threads(threads)
        self.quantized: QuantizedNetwork | None = None
        if isinstance(network, QuantizedNetwork):
            if n_steps not in (None, network.n_steps):
                raise RunError(
                    "a quantized network belongs to one number of steps",
                    got=n_steps,
                    expected=network.n_steps,
                )
            if shift_steps is not None:
                raise RunError(
                    "a quantized network has its shift already",
                    where="shift_steps",
                    got=shift_steps,
                    hint="give it to evsnn.quantize",
                )
            if coding not in (None, network.circuit.coding):
                raise RunError(
                    "a quantized network belongs to one coding",
                    where="coding",
                    got=coding,
                    expected=network.circuit.coding,
                    hint="give it to evsnn.quantize",
                )
            self.quantized, arithmetic, network = network, "int8", network.network
        elif arithmetic == "int8":
            self.quantized = quantize(network, n_steps, shift_steps=shift_steps, coding=coding)
        self.network, self.arithmetic = network, arithmetic
        self.circuit: Circuit = (
            self.quantized.circuit
            if self.quantized
            else build_circuit(network, n_steps, shift_steps, coding=coding)
        )
        self.n_steps, self.coding = self.circuit.n_steps, self.circuit.coding
        self._engine: Engine | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._kept: tuple[tuple[int, bool, bool] | None, list[Workspace]] = None, []
        self._running = Lock()
        self._runner: int | None = None
        self._process = os.getpid()
        if self.coding == "graded" and backend == "auto":
            planned = time.perf_counter()
            self.backend, self.backend_note = "reference", _NO_GRADED
        else:
            self.plan  # noqa: B018 - made here, so that what the engine refuses is known at once
            planned = time.perf_counter()
            self.backend, self.backend_note = _backend(backend, self.plan)
        self.start_up_ms = {
            "import": (time.perf_counter() - planned) * 1e3,
            "plan": (planned - started) * 1e3,
            "compile": 0.0,
        }

    @cached_property
    def plan(self) -> Plan:
        """What the engine computes: sizes and tables."""
        return plan(self.circuit, self.quantized.widths if self.quantized else None)

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Bytes that `prepare` and `run` will allocate, by what they are for: see `memory_for`."""
        return self.memory_for()

    def memory_for(self, n_samples: int | None = None) -> dict[str, int]:
        """Bytes that `prepare` and a run of so many samples will allocate, by what they are for.

        Parameters
        ----------
        n_samples : int, optional
            At least 1; fewer than there are threads run one after the other. None: as many as there are
            threads, or more.

        Returns
        -------
        dict of str to int
            "queues" is for events if every neuron fires at every step: how much of it is used is up to the
            spikes. All else is used whatever the samples.
        """
        at_once = self.threads if n_samples is None or n_samples >= self.threads else 1
        if self.backend == "reference":
            return {"reference": reference.needed_bytes(self.circuit)} | self._drawn_bytes(1)
        parts = sum(
            len(projection.sources)
            for p in self.circuit.populations
            if not isinstance(p, MaxPool)
            for projection in (*p.projections, *p.analog_projections)
        )
        own = self.plan.workspace_bytes - self.plan.event_bytes + _PART_BYTES * max(0, parts - _FEW_PARTS)
        return {
            "weights": self.plan.n_bytes,
            "workspaces": own * at_once,
            "queues": self.plan.event_bytes * at_once,
        } | self._drawn_bytes(at_once)

    def _drawn_bytes(self, at_once: int) -> dict[str, int]:
        """Bytes of the Poisson spikes of a sample, which each thread draws before it runs it."""
        if self.network.input.encoding != "poisson":
            return {}
        return {"spikes": at_once * self.n_steps * math.prod(self.circuit.input_shape)}

    def result_bytes(
        self, n_samples: int, *, record: Iterable[str] = (), record_steps: Iterable[int] | None = None
    ) -> int:
        """Bytes of what `run` returns for so many samples, which it allocates beside `memory_bytes`.

        Parameters
        ----------
        n_samples : int
        record, record_steps
            As for `run`.

        Returns
        -------
        int
        """
        steps = checked_record_steps(record_steps, self.circuit)
        return result_bytes(self.circuit, n_samples, checked_record(record), len(steps))

    def prepare(self, progress: Progress | None = None) -> dict[str, float]:
        """Allocate memory and load or compile kernels, unless that has been done.

        Parameters
        ----------
        progress : callable (done, total), optional
            It is called after each layer.

        Returns
        -------
        dict of str to float
            The milliseconds that each part took, as in `start_up_ms`.
        """
        if self.backend == "numba" and self._engine is None:
            self._made_engine(progress)
        if self.backend == "numba" and self._executor is None and self.threads > 1:
            self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="evsnn")
        return dict(self.start_up_ms)

    def _made_engine(self, progress: Progress | None = None) -> Engine:
        """The engine, made by the first who needs it."""
        if self._engine is None:
            from .engine.workspace import Engine

            self._engine = Engine(self.plan, progress)
            for name, value in self._engine.times_ms.items():
                self.start_up_ms[name] += value
        return self._engine

    def run(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        record_steps: Iterable[int] | None = None,
        record: Iterable[str] = (),
        seed: int = 0,
        first: int = 0,
        progress: Progress | None = None,
    ) -> Result:
        """Run all steps of all images.

        Parameters
        ----------
        images, labels, record_steps, record, seed, first, progress
            As for `simulate`.

        Returns
        -------
        Result

        Raises
        ------
        RunError
            If an option is out of range, the simulator is running already in this thread, or outputs are not
            finite.
        InputError
            If images or labels do not fit the network.
        """
        record, seed = checked_record(record), checked_seed(seed)
        first = checked_seed(first, "first")
        steps = checked_record_steps(record_steps, self.circuit)
        images = check_images(self.network, images, self.n_steps)
        labels = checked_labels(labels, len(images), self.network)
        with self._exclusively():
            self.prepare()
            tally = self._tally(len(images), record, steps)
            if self.backend == "reference":
                self._run_reference(images, seed, first, tally, progress)
            else:
                self._run_engine(images, seed, first, tally, progress)
        return self._result(tally, self.n_steps, self.n_steps, labels)

    def _exclusively(self) -> _Exclusively:
        """A context manager that allows one run at a time: a workspace serves one sample at a time."""
        if self._process != os.getpid():  # a fork has this object's memory, but not its threads
            self._executor, self._kept, self._running, self._process = None, (None, []), Lock(), os.getpid()
        if self._runner == get_ident():
            raise RunError(
                "a Simulator cannot run inside its own run", hint="call it after the run, or make another one"
            )
        return _Exclusively(self)

    def _tally(
        self,
        n_samples: int,
        record: frozenset[str],
        record_steps: Sequence[int],
        first: int = 0,
        n_steps: int | None = None,
        emitted: Sequence[np.ndarray] | None = None,
    ) -> Tally:
        return Tally(self.circuit, self._scales, n_samples, record, record_steps, first, n_steps, emitted)

    @cached_property
    def _scales(self) -> list[np.ndarray] | None:
        """What 1 means in the membranes of each readout; None if they are in units of the ANN."""
        if self.quantized is None:
            return None
        scales = (self.quantized.scales[j] for j in self.circuit.readouts)
        return [np.ones(1) if scale is None else scale for scale in scales]

    def _result(self, tally: Tally, n_steps: int, last: int, labels: np.ndarray | None = None) -> Result:
        """The result of `n_steps` steps that end after step `last`."""
        named = {
            layer.name: tally.outputs_at[j][last]
            for j, layer in zip(self.circuit.readouts, self.network.outputs)
        }
        for name, outputs in named.items():
            if not np.isfinite(outputs).all():
                raise RunError(
                    "outputs are not finite",
                    where=f"layer {name!r}",
                    got="infinity or NaN",
                    hint="weights, thresholds or inputs are too large for float32",
                )
        outputs_at = tally.outputs_at[self.circuit.readouts[0]]
        return Result(
            outputs=outputs_at[last],
            n_steps=n_steps,
            arithmetic=self.arithmetic,
            coding=self.coding,
            backend=self.backend,
            threads=self.threads if self.backend == "numba" else 1,
            latency_ms=tally.latency_ms,
            layers=tally.layers(),
            labels=labels,
            outputs_at=ReadOnly(outputs_at),
            named_outputs=ReadOnly(named),
            task=self.network.task,
        )

    def start(self, image: np.ndarray | None = None, *, seed: int = 0, index: int = 0) -> State:
        """Begin a run of one sample that `advance` continues by blocks of steps.

        Parameters
        ----------
        image : (*input_shape) real, optional
            The sample. None for networks that read events, whose events come with `advance`.
        seed, index : int
            Poisson spikes are those of sample `index` in a run with this seed.

        Returns
        -------
        State
            The state before the first step.

        Raises
        ------
        InputError
            If the image does not fit.
        RunError
            If the seed is out of range.

        Examples
        --------
        >>> simulator = evsnn.Simulator(net, 32)
        >>> state = simulator.start(image)
        >>> simulator.advance(state, 8).n_steps, state.step
        (8, 8)
        >>> last = simulator.advance(state)
        >>> last.n_steps, state.step
        (24, 32)
        >>> np.array_equal(last.outputs, simulator.run(image[None]).outputs)
        True
        """
        if self.coding == "graded":
            raise RunError("a run of graded spikes has no steps to stop at", hint="call run")
        events = self.network.input.encoding == "events"
        if events != (image is None):
            expected = "no image: events come with advance" if events else "an image"
            raise InputError("the sample does not fit the network's input", where="image", expected=expected)
        seed = checked_seed(seed)
        sample = None if image is None else check_images(self.network, image, self.n_steps)
        if sample is not None:
            if len(sample) != 1:
                raise InputError(
                    "a state holds one sample", where="image", got=f"{len(sample)} images", expected="one"
                )
            sample = sample[0].reshape(self.circuit.input_shape)
            if self.quantized and self.circuit.analog:
                sample = self.quantized.encode(sample)
        current = sample if self.circuit.analog else None
        backend: EngineState | reference.State
        with self._exclusively():
            if self.backend == "reference":
                backend = reference.start(self.circuit, 1, None if current is None else current[None])
            else:
                from .engine.state import State as EngineState

                backend = EngineState(self.plan, carries=True)
                workspace = self._workspace()
                workspace.bind(backend)
                workspace.start(current)
        state = State(
            circuit=self._circuit_digest,
            about=self._about,
            backend=backend,
            sample=sample,
            seed=(seed, index),
        )
        self._begin(state)
        return state

    def reset(self, state: State) -> None:
        """Bring a state back to before the first step of its sample.

        Parameters
        ----------
        state : State
            Changed in place.

        Raises
        ------
        RunError
            If the state belongs to another circuit.

        Examples
        --------
        >>> simulator = evsnn.Simulator(net, 8)
        >>> state = simulator.start(image)
        >>> once = simulator.advance(state)
        >>> simulator.reset(state)
        >>> again = simulator.advance(state)
        >>> np.array_equal(once.outputs, again.outputs)
        True
        """
        state.require(self._circuit_digest, self._about)
        if isinstance(state.backend, reference.State):
            current = state.sample if self.circuit.analog else None
            state.backend = reference.start(self.circuit, 1, None if current is None else current[None])
        else:
            state.backend.reset()
        self._begin(state)

    def _begin(self, state: State) -> None:
        """Set what a state holds beside the back end's part, as it is before the first step."""
        readouts = [self.circuit.populations[j] for j in self.circuit.readouts]
        state.emitted = tuple(np.zeros((1, *p.shape)) for p in readouts) if readouts[0].fires else None
        state.outputs = None
        state.generator = (
            np.random.default_rng(state.seed) if self.network.input.encoding == "poisson" else None
        )

    def advance(
        self,
        state: State,
        n_steps: int | None = None,
        events: np.ndarray | None = None,
        *,
        record: Iterable[str] = (),
    ) -> Result:
        """Run a block of steps of a sample that `start` has begun, and move its state on.

        A run may pass its last step T only if nothing in the network depends on T; `Circuit.depends_on_steps`
        names what does.

        Parameters
        ----------
        state : State
            Changed in place.
        n_steps : int, optional
            None: the rest of the run, or as many steps as there are events.
        events : (n_steps, *input_shape) of 0 and 1, optional
            The input of these steps, for networks that read events.
        record : iterable of {"spike_counts", "v_mem", "spikes"}
            What to keep of every layer for these steps, see `LayerResult`.

        Returns
        -------
        Result
            Of one sample. `outputs` are the means over all steps so far; counts are those of these steps, and
            `n_steps` is their number.

        Raises
        ------
        RunError
            If the state belongs to another circuit; if the run would pass its last step and something depends
            on it; if a network with a warm-up does not run all its steps at once.
        InputError
            If the events do not fit.

        Examples
        --------
        >>> simulator = evsnn.Simulator(net, 16)
        >>> state = simulator.start(image)
        >>> first = simulator.advance(state, 4, record=("spikes",))
        >>> first.layers[0].spikes.shape[1]
        4
        """
        state.require(self._circuit_digest, self._about)
        record = checked_record(record)
        if self.network.input.encoding == "events":
            if events is None:
                raise InputError(
                    "there are no events", where="events", expected="(n_steps, *input_shape) of 0 and 1"
                )
            n_steps = len(np.asarray(events)) if n_steps is None else n_steps
            events = check_images(self.network, events, n_steps)[0].reshape(
                n_steps, *self.circuit.input_shape
            )
        elif events is not None:
            raise InputError("the network takes no events", where="events", got=self.network.input.encoding)
        n_steps = self.n_steps - state.step if n_steps is None else n_steps
        self._check_block(state.step, n_steps)
        if state.generator is not None and state.sample is not None:
            events = poisson(state.generator, state.sample, n_steps)
        first, end = state.step, state.step + n_steps
        tally = self._tally(1, record, (end,), first, n_steps, state.emitted)
        started = time.perf_counter()
        with self._exclusively():
            if isinstance(state.backend, reference.State):
                inputs = None if events is None else events[None]
                traces = reference.advance(self.circuit, state.backend, n_steps, inputs, tally.record_steps)
                _add_traces(tally, 0, first, traces, time.perf_counter() - started)
            else:
                workspace = self._workspace()
                workspace.bind(state.backend)
                workspace.resume()
                watch = tally.watcher(0, workspace.spikes)
                steps = () if tally.fires else tally.record_steps
                workspace.advance(n_steps, events, watch, None, steps, partial(tally.read, 0))
                _add_runners(tally, 0, workspace)
        tally.latency_ms[0] = (time.perf_counter() - started) * 1e3
        state.outputs = tally.outputs_at[self.circuit.readouts[0]][end][0]
        return self._result(tally, n_steps, end)

    def _check_block(self, step: int, n_steps: int) -> None:
        """Refuse a block of steps that a run cannot have now."""
        if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)) or n_steps < 1:
            hint = (
                "the run is over: reset the state, or start another sample" if step >= self.n_steps else None
            )
            raise RunError(
                "n_steps is out of range", got=repr(n_steps)[:40], expected="an integer >= 1", hint=hint
            )
        end, decided = step + n_steps, self.circuit.depends_on_steps
        if end > self.n_steps and decided:
            raise RunError(
                f"the run would pass its last step, on which its {' and '.join(decided)} depend",
                got=f"step {end}",
                expected=f"at most T = {self.n_steps}",
                hint="make a Simulator with more steps; only a network that does not depend on T can run on",
            )
        if self.circuit.has_warm_up and n_steps != self.n_steps:
            raise RunError(
                "a network with a warm-up runs all its steps at once",
                got=f"{n_steps} steps",
                expected=f"T = {self.n_steps}",
            )

    @cached_property
    def _circuit_digest(self) -> str:
        return digest(
            (self.network.input.encoding, self.backend, self.circuit), without=frozenset({"network"})
        )

    @property
    def _about(self) -> str:
        return f"T = {self.n_steps}, {self.coding}, {self.arithmetic}, {self.backend}"

    def _workspace(self) -> Workspace:
        """The workspace that runs single samples."""
        self.prepare()
        return self._workspaces(1, False, self._executor)[0]

    def encode(self, image: np.ndarray, seed: int, index: int) -> np.ndarray:
        """A checked image in the form that back ends take.

        Parameters
        ----------
        image : (*input_shape) float32, or (n_steps, *input_shape) bool
            As `evsnn.circuit.encoding.check_images` returns it, without the batch.
        seed, index : int
            Poisson spikes are those of sample `index` in a run with this seed.

        Returns
        -------
        (channels, height, width) float32 or int32, or (n_steps, channels, height, width) bool
            A constant current, or spikes.
        """
        encoded = encode(self.network, image, self.n_steps, seed, index)
        return self.quantized.encode(encoded) if self.quantized and self.circuit.analog else encoded

    def _run_reference(
        self, images: np.ndarray, seed: int, number: int, tally: Tally, progress: Progress | None
    ) -> None:
        for i, image in enumerate(images):
            started = time.perf_counter()
            traces = reference.run(
                self.circuit, self.encode(image, seed, number + i)[None], tally.record_steps
            )
            elapsed = time.perf_counter() - started
            _add_traces(tally, i, 0, traces, elapsed)
            del traces  # its spikes go before the next sample's come
            tally.latency_ms[i] = elapsed * 1e3
            if progress:
                progress(i + 1, len(images))

    def _run_engine(
        self, images: np.ndarray, seed: int, number: int, tally: Tally, progress: Progress | None
    ) -> None:
        keep = "v_mem" in tally.record
        executor = self._executor
        if executor is None or len(images) < self.threads:
            (workspace,) = self._workspaces(1, keep, executor)
            for i, image in enumerate(images):
                self._run_sample(workspace, image, (seed, number + i), i, tally)
                if progress:
                    progress(i + 1, len(images))
            return
        free = self._workspaces(self.threads, keep, None)
        stop = Event()
        running: dict[Future[None], Workspace] = {}
        done = 0
        todo = iter(range(len(images)))
        try:
            while True:
                while free and (j := next(todo, None)) is not None:
                    workspace = free.pop()
                    running[
                        executor.submit(
                            self._run_sample, workspace, images[j], (seed, number + j), j, tally, stop
                        )
                    ] = workspace
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    free.append(running.pop(future))
                    future.result()
                    done += 1
                    if progress:
                        progress(done, len(images))
        finally:  # after an error or Ctrl-C the other threads stop at the end of the layer that they compute
            stop.set()
            wait(running)

    def _workspaces(
        self, count: int, keep_membranes: bool, executor: ThreadPoolExecutor | None
    ) -> list[Workspace]:
        """Workspaces of one kind, kept from run to run; workspaces of another kind are freed first."""
        from .engine.workspace import Workspace

        kind = count, keep_membranes, executor is not None
        if self._kept[0] != kind:
            self._kept = None, []
            threads = self.threads if executor else 1
            engine = self._made_engine()
            made = [Workspace(engine, keep_membranes, executor, threads) for _ in range(count)]
            self._kept = kind, made
        return list(self._kept[1])

    def _run_sample(
        self,
        workspace: Workspace,
        image: np.ndarray,
        seed: tuple[int, int],
        i: int,
        tally: Tally,
        stop: Event | None = None,
    ) -> None:
        started = time.perf_counter()
        workspace.run(
            self.encode(image, *seed),
            watch=tally.watcher(i, workspace.spikes),
            stop=stop,
            record_steps=() if tally.fires else tally.record_steps,
            read=partial(tally.read, i),
        )
        _add_runners(tally, i, workspace)
        tally.latency_ms[i] = (time.perf_counter() - started) * 1e3


class _Exclusively:
    """The time in which a simulator runs. A class, because a generator would cost microseconds per run."""

    def __init__(self, simulator: Simulator):
        self._simulator = simulator

    def __enter__(self) -> None:
        self._simulator._running.acquire()
        self._simulator._runner = get_ident()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # Ctrl-C: a thread may still be in one of the workspaces
            self._simulator._kept = None, []
        self._simulator._runner = None
        self._simulator._running.release()


def _add_runners(tally: Tally, i: int, workspace: Workspace) -> None:
    """Add the counts and times of sample i, from the workspace that has run it."""
    for j, runner in enumerate(workspace.runners):
        tally.add(
            j,
            i,
            n_spikes=runner.n_spikes,
            n_events=runner.n_events,
            sops=runner.sops,
            seconds=runner.seconds,
            v_mem=None if tally.v_mem is None else workspace.state.v_mem(j),
        )


def _add_traces(tally: Tally, i: int, first: int, traces: Sequence[reference.Trace], seconds: float) -> None:
    """Add the counts and spikes of sample i from step `first` on, from the reference's traces of it alone."""
    for j, trace in enumerate(traces):
        tally.add_spikes(j, i, first, trace.spikes[0])
        tally.add(
            j,
            i,
            n_spikes=int(np.count_nonzero(trace.spikes)),
            n_events=trace.n_events,
            sops=trace.sops,
            seconds=seconds / len(traces),
            v_mem=None if trace.v_mem is None else trace.v_mem[0],
        )
        for step, v_mem in trace.v_mem_at.items():
            tally.read(i, j, step, v_mem[0])


def _backend(name: str, plan: Plan) -> tuple[str, str]:
    """The back end to use, and why it is not the engine if "auto" was asked for."""
    if name == "reference":
        return name, ""
    problem, possible = _problem(plan)
    if name == "numba" and possible:
        return (
            name,
            "numba's compiler is switched off; kernels run as plain Python, very slowly" if problem else "",
        )
    if name == "numba":
        raise RunError(
            "the event-driven engine cannot run here", got=problem, hint="use backend='auto' or 'reference'"
        )
    return (
        ("reference", f"{problem}; the NumPy reference runs instead, slowly, with the same bits")
        if problem
        else ("numba", "")
    )


def _problem(plan: Plan) -> tuple[str, bool]:
    """Why the engine should not run, and whether it could run nevertheless.

    numba is imported only if machine code is missing.
    """
    if sys.byteorder == "big":
        return "this CPU is big-endian", False
    from .engine.kernels.code import compiler_off, missing
    from .engine.workspace import needed

    try:
        if compiler_off() or missing(needed(plan)):
            import numba  # noqa: F401
    except _BROKEN as error:
        return f"numba cannot be imported ({type(error).__name__}: {error})"[:200], False
    return "numba's compiler is switched off" if compiler_off() else "", True
