"""Running a network: the one door to the engine and to the reference."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from threading import Event, Lock, get_ident
from typing import TYPE_CHECKING

import numpy as np

from .circuit import reference
from .circuit.encoding import check_images, encode
from .circuit.populations import Circuit, MaxPool, Population, lower
from .circuit.quantized import QuantizedNetwork, quantize
from .engine.plan import Plan, plan
from .errors import InputError, RunError
from .network.network import Network
from .network.tuning import ReadOnly
from .result import LayerResult, Result

if TYPE_CHECKING:
    from .engine.workspace import Workspace

__all__ = ["ARITHMETICS", "BACKENDS", "RECORDS", "Simulator", "simulate"]

ARITHMETICS = ("float32", "int8")
BACKENDS = ("auto", "numba", "reference")
RECORDS = ("spike_counts", "v_mem", "spikes")
MAX_THREADS = 1024

Progress = Callable[[int, int], None]


def simulate(
    network: Network,
    images: np.ndarray,
    *,
    n_steps: int | None = None,
    read_at: Iterable[int] | None = None,
    shift_steps: int | None = None,
    arithmetic: str = "float32",
    threads: int | None = None,
    labels: np.ndarray | None = None,
    seed: int = 0,
    record: Iterable[str] = (),
    backend: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Run a network on images.

    Parameters
    ----------
    network : Network
    images : (n, *input_shape) real
        In the network's own scale; for networks of events (n, n_steps, *input_shape) of 0 and 1.
    n_steps : int, optional
        Time steps T. None: the network's own.
    read_at : iterable of int, optional
        Steps from 1 to T after which the readout is read, each once, in any order: `Result.readings`. Where a
        layer fires with a delay, T alone. The shift V_th/2T and the integers of int8 stay those of the whole
        run.
    shift_steps : int, optional
        T of the shift V_th/2T, if not the run's; only for networks whose shift is "bias".
    arithmetic : {"float32", "int8"}
        "int8": weights of 8 bits and exact integer membranes, see `evsnn.quantize`; needs the network's
        `input_range` or samples.
    threads : int, optional
        None: the processors this process may use.
    labels : (n,) integers, optional
    seed : int
        Of the Poisson encoding.
    record : iterable of {"spike_counts", "v_mem", "spikes"}
        What to keep of every layer.
    backend : {"auto", "numba", "reference"}
        "auto": the event-driven engine where numba works, else the NumPy reference; same bits.
    progress : callable (done, total), optional
        Called after each sample.

    Returns
    -------
    Result

    Raises
    ------
    RunError, InputError
    """
    simulator = Simulator(
        network, n_steps, shift_steps=shift_steps, arithmetic=arithmetic, threads=threads, backend=backend
    )
    return simulator.run(images, labels=labels, read_at=read_at, record=record, seed=seed, progress=progress)


class Simulator:
    """A network made ready to run at one number of steps.

    Creating one plans only: `memory_bytes` says what `prepare` will allocate. `run` prepares when
    that has not been done.

    Parameters
    ----------
    network : Network or QuantizedNetwork
    n_steps, shift_steps, arithmetic, threads, backend
        As for `simulate`.

    Attributes
    ----------
    memory_bytes : dict of str to int
        What will be allocated, by name.
    start_up_ms : dict of str to float
        Time spent on planning and compiling so far.
    """

    def __init__(
        self,
        network: Network | QuantizedNetwork,
        n_steps: int | None = None,
        *,
        shift_steps: int | None = None,
        arithmetic: str = "float32",
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
        self.threads = _threads(threads)
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
            self.quantized, arithmetic, network = network, "int8", network.network
        elif arithmetic == "int8":
            self.quantized = quantize(network, n_steps, shift_steps=shift_steps)
        self.network, self.arithmetic = network, arithmetic
        self.circuit: Circuit = (
            self.quantized.circuit if self.quantized else lower(network, n_steps, shift_steps)
        )
        self.n_steps = self.circuit.n_steps
        self.plan: Plan = plan(self.circuit, self.quantized.widths if self.quantized else None)
        self._engine = None
        self._pool: ThreadPoolExecutor | None = None
        self._kept: tuple[tuple | None, list[Workspace]] = None, []
        self._running = Lock()
        self._runner: int | None = None
        self._process = os.getpid()
        planned = time.perf_counter()
        self.backend, self.backend_note = _backend(backend, self.plan)
        self.start_up_ms = {
            "import": (time.perf_counter() - planned) * 1e3,
            "plan": (planned - started) * 1e3,
            "compile": 0.0,
        }

    @property
    def memory_bytes(self) -> dict[str, int]:
        if self.backend == "reference":
            n_bytes = sum(p.n_neurons * (self.n_steps + 16 + 8 * p.signed) for p in self.circuit.populations)
            n_bytes += sum(8 * p.n_inputs for p in self.circuit.populations if isinstance(p, MaxPool))
            return {"reference": n_bytes * self.threads}
        return {"weights": self.plan.n_bytes, "workspaces": self.plan.workspace_bytes * self.threads}

    def prepare(self, progress: Progress | None = None) -> dict[str, float]:
        """Allocate and compile; the milliseconds each took. `progress` is called layer by layer."""
        if self.backend == "numba" and self._engine is None:
            from .engine.workspace import Engine

            self._engine = Engine(self.plan, progress)
            for name, value in self._engine.times_ms.items():
                self.start_up_ms[name] += value
        if self.backend == "numba" and self._pool is None and self.threads > 1:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="evsnn")
        return dict(self.start_up_ms)

    def run(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        read_at: Iterable[int] | None = None,
        record: Iterable[str] = (),
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Result:
        """Run on images; see `simulate`."""
        record = (
            (record,)
            if isinstance(record, str)
            else tuple(record)
            if isinstance(record, (tuple, list, set, frozenset))
            else (record,)
        )
        if not all(isinstance(name, str) and name in RECORDS for name in record):
            raise RunError("unknown record", got=repr(record)[:80], expected=", ".join(RECORDS))
        record = frozenset(record)
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise RunError("seed is out of range", got=repr(seed)[:40], expected="an integer >= 0")
        steps = _read_at(read_at, self.circuit)
        images = check_images(self.network, images, self.n_steps)
        labels = _labels(labels, len(images), self.network.n_classes)
        if self._process != os.getpid():  # a fork has this object's memory, but not its threads
            self._pool, self._kept, self._running, self._process = None, (None, []), Lock(), os.getpid()
        if self._runner == get_ident():
            raise RunError(
                "a Simulator cannot run inside its own run", hint="call it after the run, or make another one"
            )
        with self._running:  # its workspaces serve one run at a time
            self._runner = get_ident()
            try:
                self.prepare()
                tally = _Tally(self, len(images), record, steps)
                if self.backend == "reference":
                    self._run_reference(images, seed, tally, progress)
                else:
                    self._run_engine(images, seed, tally, progress)
            except BaseException:  # Ctrl-C: a thread may still be in one of the workspaces
                self._kept = None, []
                raise
            finally:
                self._runner = None
        outputs = tally.readings[self.n_steps]
        if not np.isfinite(outputs).all():
            raise RunError(
                "outputs are not finite",
                got="infinity or NaN",
                hint="weights, thresholds or inputs are too large for float32",
            )
        return Result(
            outputs,
            self.n_steps,
            self.arithmetic,
            self.backend,
            self.threads if self.backend == "numba" else 1,
            tally.latency_ms,
            tally.layers(),
            labels,
            ReadOnly(tally.readings),
        )

    def encode(self, image: np.ndarray, seed: int, index: int) -> np.ndarray:
        """A checked image as the backends take it."""
        encoded = encode(self.network, image, self.n_steps, seed, index)
        return self.quantized.encode(encoded) if self.quantized and self.circuit.analog else encoded

    def _run_reference(self, images: np.ndarray, seed: int, tally: _Tally, progress: Progress | None) -> None:
        for i, image in enumerate(images):
            started = time.perf_counter()
            traces = reference.run(self.circuit, self.encode(image, seed, i)[None], tally.readings)
            elapsed = time.perf_counter() - started
            for j, trace in enumerate(traces):
                tally.add_spikes(j, i, 0, trace.spikes[0])
                tally.add(
                    j,
                    i,
                    np.count_nonzero(trace.spikes),
                    trace.n_events,
                    trace.sops,
                    elapsed / len(traces),
                    None if trace.v_mem is None else trace.v_mem[0],
                )
            for step, v_mem in traces[-1].v_mem_at.items():
                tally.read(i, step, v_mem[0])
            tally.latency_ms[i] = elapsed * 1e3
            if progress:
                progress(i + 1, len(images))

    def _run_engine(self, images: np.ndarray, seed: int, tally: _Tally, progress: Progress | None) -> None:
        keep = "v_mem" in tally.record
        if self.threads == 1 or len(images) < self.threads:
            (workspace,) = self._workspaces(1, keep, self._pool)
            for i, image in enumerate(images):
                self._run_sample(workspace, image, seed, i, tally)
                if progress:
                    progress(i + 1, len(images))
            return
        free = self._workspaces(self.threads, keep, None)
        stop = Event()
        running: dict[Future, Workspace] = {}
        done = 0
        todo = iter(range(len(images)))
        try:
            while True:
                while free and (i := next(todo, None)) is not None:
                    workspace = free.pop()
                    running[
                        self._pool.submit(self._run_sample, workspace, images[i], seed, i, tally, stop)
                    ] = workspace
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    free.append(running.pop(future))
                    future.result()
                    done += 1
                    if progress:
                        progress(done, len(images))
        finally:  # an error, or Ctrl-C: the others stop after the layer they are in
            stop.set()
            wait(running)

    def _workspaces(
        self, count: int, keep_membranes: bool, pool: ThreadPoolExecutor | None
    ) -> list[Workspace]:
        """Workspaces of one kind, kept from run to run; those of another kind go first."""
        from .engine.workspace import Workspace

        kind = count, keep_membranes, pool is not None
        if self._kept[0] != kind:
            self._kept = None, []
            self._kept = (
                kind,
                [
                    Workspace(self._engine, keep_membranes, pool, self.threads if pool else 1)
                    for _ in range(count)
                ],
            )
        return list(self._kept[1])

    def _run_sample(
        self,
        workspace: Workspace,
        image: np.ndarray,
        seed: int,
        i: int,
        tally: _Tally,
        stop: Event | None = None,
    ) -> None:
        started = time.perf_counter()
        workspace.run(
            self.encode(image, seed, i),
            tally.watch(workspace, i),
            stop,
            () if tally.fires else tally.readings,
            partial(tally.read, i),
        )
        for j, stage in enumerate(workspace.stages):
            tally.add(j, i, stage.n_spikes, stage.n_events, stage.sops, stage.seconds, stage.v_mem)
        tally.latency_ms[i] = (time.perf_counter() - started) * 1e3


class _Tally:
    """Results in the making; each sample writes its own rows, so threads do not meet."""

    def __init__(
        self, simulator: Simulator, n_samples: int, record: frozenset[str], read_at: tuple[int, ...]
    ):
        self.simulator, self.record = simulator, record
        self.populations: tuple[Population | MaxPool, ...] = simulator.circuit.populations
        n = len(self.populations)
        self.counts = np.zeros((n_samples, n, 3), np.int64)
        self.seconds = np.zeros((n_samples, n))
        self.latency_ms = np.zeros(n_samples)
        self.readings = {step: np.zeros((n_samples, simulator.network.n_classes)) for step in read_at}
        integers = simulator.quantized is not None
        self.spike_counts = self._arrays("spike_counts", n_samples, (), [np.int32] * n)
        self.v_mem = self._arrays(
            "v_mem",
            n_samples,
            (),
            [
                None if isinstance(p, MaxPool) else np.int64 if integers else np.float32
                for p in self.populations
            ],
        )
        self.spikes = self._arrays(
            "spikes",
            n_samples,
            (simulator.n_steps,),
            [np.int8 if p.signed else bool for p in self.populations],
        )
        last = self.populations[-1]
        self.fires = last.fires
        if self.fires:
            self.emitted = np.zeros((n_samples, simulator.network.n_classes))
            self.amplitude = simulator.circuit.network.by_name[last.name].v_threshold.astype(np.float64)
            self.unit = np.float64(1)
        else:
            self.unit = simulator.quantized.units[-1] if integers else np.float64(1)

    def _arrays(
        self, what: str, n_samples: int, steps: tuple[int, ...], dtypes: list
    ) -> list[np.ndarray | None] | None:
        """An array a population of the given types, where they are asked for; none where a type is None."""
        if what not in self.record:
            return None
        return [
            None if dtype is None else np.zeros((n_samples, *steps, *p.shape), dtype)
            for p, dtype in zip(self.populations, dtypes)
        ]

    def add(
        self,
        j: int,
        i: int,
        n_spikes: int,
        n_events: int,
        sops: int,
        seconds: float,
        v_mem: np.ndarray | None,
    ) -> None:
        """Sample i's numbers of population j."""
        self.counts[i, j] = n_spikes, n_events, sops
        self.seconds[i, j] = seconds
        if self.v_mem is not None and self.v_mem[j] is not None:
            self.v_mem[j][i] = v_mem

    def add_spikes(self, j: int, i: int, first: int, spikes: np.ndarray) -> None:
        """Sample i's spikes (n_steps, channels, height, width) of population j from step `first` on."""
        if self.spikes is not None:
            self.spikes[j][i, first : first + len(spikes)] = spikes
        if self.spike_counts is not None:
            self.spike_counts[j][i] += spikes.sum(axis=0, dtype=np.int32)
        if j == len(self.populations) - 1 and self.fires:
            counts = self.emitted[i] + spikes.sum(axis=(2, 3)).cumsum(axis=0)
            self.emitted[i] = counts[-1]
            for step in self.readings:
                if first < step <= first + len(spikes):
                    self.readings[step][i] = (
                        counts[step - first - 1] * self.amplitude / step
                    )  # in this order, so that ties of exact sums stay ties

    def read(self, i: int, step: int, v_mem: np.ndarray) -> None:
        """Sample i's membranes (n_classes, 1, 1) of a readout that never fires, after `step`."""
        self.readings[step][i] = v_mem.ravel() * self.unit / step

    def watch(self, workspace: Workspace, i: int) -> Callable[[int, int], None] | None:
        """What `Workspace.run` calls after each block of sample i; None where spikes are not needed."""
        wanted = (
            range(len(self.populations))
            if self.spikes is not None or self.spike_counts is not None
            else [len(self.populations) - 1] * self.fires
        )
        if not wanted:
            return None

        def look(first: int, n_steps: int) -> None:
            for j in wanted:
                self.add_spikes(j, i, first, workspace.spikes(j, n_steps))

        return look

    def layers(self) -> tuple[LayerResult, ...]:
        def shaped(arrays: list[np.ndarray | None] | None, j: int, lead: int) -> np.ndarray | None:
            return (
                None
                if arrays is None or arrays[j] is None
                else arrays[j].reshape(*arrays[j].shape[:lead], *self.populations[j].output_shape)
            )

        n_samples = len(self.counts)
        totals, seconds = self.counts.sum(axis=0), self.seconds.sum(axis=0)
        return tuple(
            LayerResult(
                p.name,
                p.label,
                p.output_shape,
                int(n_spikes),
                int(n_events),
                int(sops),
                p.macs * n_samples,
                float(seconds[j]) * 1e3,
                p.fires,
                shaped(self.spike_counts, j, 1),
                shaped(self.v_mem, j, 1),
                shaped(self.spikes, j, 2),
            )
            for j, (p, (n_spikes, n_events, sops)) in enumerate(zip(self.populations, totals))
        )


def _read_at(read_at: Iterable[int] | None, circuit: Circuit) -> tuple[int, ...]:
    """The steps to read after, ascending, the last step always among them."""
    n_steps = circuit.n_steps
    if read_at is None:
        return (n_steps,)
    expected = f"integers from 1 to {n_steps}, each once"
    if not isinstance(read_at, Iterable) or isinstance(read_at, (str, bytes)):
        raise RunError("read_at is not a list of steps", got=repr(read_at)[:80], expected=expected)
    steps = tuple(islice(read_at, n_steps + 1))  # no more: then one comes twice, or is out of range
    if not steps:
        raise RunError(
            "read_at is empty", expected=expected, hint="leave it out to read after the last step alone"
        )
    for step in steps:
        if (
            isinstance(step, (bool, np.bool_))
            or not isinstance(step, (int, np.integer))
            or not 1 <= step <= n_steps
        ):
            raise RunError("read_at is out of range", got=repr(step)[:80], expected=expected)
    if len(set(steps)) < len(steps):
        raise RunError(
            "read_at names a step twice", got=Counter(steps).most_common(1)[0][0], expected=expected
        )
    if circuit.delayed and min(steps) < n_steps:
        hint = "run each number of steps on its own, or use no delays"
        raise RunError(
            "a network that fires with a delay can be read after its last step alone",
            got=f"step {min(steps)}",
            expected=f"step {n_steps}",
            hint=hint,
        )
    return tuple(sorted({int(step) for step in steps} | {n_steps}))


def _threads(threads: int | None) -> int:
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (
        isinstance(threads, bool)
        or not isinstance(threads, (int, np.integer))
        or not 1 <= threads <= MAX_THREADS
    ):
        raise RunError("threads is out of range", got=threads, expected=f"an integer from 1 to {MAX_THREADS}")
    return int(threads)


def _backend(name: str, plan: Plan) -> tuple[str, str]:
    """The backend to use, and why it is not the engine where "auto" was asked for."""
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
    """What speaks against the engine, and whether it could run all the same. numba is imported if machine
    code is missing, not else.
    """
    if sys.byteorder == "big":
        return "this CPU is big-endian", False
    from .engine.kernels.code import compiler_off, missing
    from .engine.workspace import needed

    try:
        if compiler_off() or missing(needed(plan)):
            import numba  # noqa: F401
    except ImportError as error:
        return f"numba cannot be imported ({error})", False
    return "numba's compiler is switched off" if compiler_off() else "", True


def _labels(labels: np.ndarray | None, n_samples: int, n_classes: int) -> np.ndarray | None:
    if labels is None:
        return None
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise InputError("labels are not an array", where="labels", got=type(labels).__name__) from error
    if array.dtype.kind not in "iu":
        raise InputError(
            "labels are not classes",
            where="labels",
            got=f"dtype {array.dtype}",
            expected=f"integers from 0 to {n_classes - 1}",
        )
    if array.shape != (n_samples,):
        raise InputError(
            "labels and images do not fit",
            where="labels",
            got=f"shape {array.shape}",
            expected=f"({n_samples},)",
        )
    if array.min() < 0 or array.max() >= n_classes:
        raise InputError(
            "labels are not classes",
            where="labels",
            got=f"{array.min()} to {array.max()}",
            expected=f"integers from 0 to {n_classes - 1}",
        )
    return array.astype(np.int64)
