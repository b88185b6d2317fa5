"""Engines in processes of their own, pinned to one core, that take turns.

All workers of a comparison stay alive and warm while one of them runs, so that a round of turns A B C A B C
meets the machine in one condition and ratios within it are fair; and the peak memory of a process is that of
one engine.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from pathlib import Path

import numpy as np

__all__ = ["Worker", "WorkerError", "peak_bytes", "pin_threads"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerError(Exception):
    """What went wrong in a worker; its message is the worker's."""


def pin_threads() -> None:
    """Ask the numeric libraries of processes started from now on for one thread."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"


def peak_bytes() -> int:
    """Peak resident memory of this process.

    From the kernel's status file where there is one: getrusage's number is never below what the parent had
    when it started this process.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        import resource

        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Worker:
    """One engine, opened on one network at one number of steps.

    Parameters
    ----------
    engine, network : str
    cache : Path
    n_steps : int
    core : int
        The core all of its threads run on.

    Raises
    ------
    WorkerError
        If the engine does not open; ``__cause__`` is None and the message one line.
    """

    def __init__(self, engine: str, network: str, cache: Path, n_steps: int, core: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, engine, network, str(cache), n_steps, core), daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            self.start_up_ms = self._answer()
        except WorkerError:
            self.close()
            raise

    def turn(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """One inference to warm the caches, then `count` timed ones.

        Returns
        -------
        wall_ms, cpu_ms : (count,) float64
            CPU time is of all threads of the process.
        """
        return self._ask("turn", count)

    def report(self) -> dict:
        """``outputs``, ``facts``, ``peak_bytes`` (before counting spikes) and ``spike_counts`` (or None)."""
        return self._ask("report")

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, *request):
        self._pipe.send(request)
        return self._answer()

    def _answer(self):
        try:
            worked, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise WorkerError(f"the process died with exit code {self._process.exitcode}") from None
        if not worked:
            raise WorkerError(answer)
        return answer


def _serve(pipe, engine: str, network: str, cache: str, n_steps: int, core: int) -> None:
    """The worker's process: open, then answer requests until the pipe closes."""
    os.sched_setaffinity(0, {core})
    try:
        started = time.perf_counter()
        import peers

        opened = peers.open_engine(engine, network, Path(cache), n_steps)
        opened.run()
        pipe.send((True, (time.perf_counter() - started) * 1e3))
        while True:
            what, *arguments = pipe.recv()
            pipe.send((True, _turn(opened, *arguments) if what == "turn" else _report(opened)))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except ImportError as error:
        pipe.send((False, f"not installed: {error}"))
    except Exception as error:  # a worker's last words: whatever it is, the comparison goes on without it
        where = traceback.extract_tb(error.__traceback__)[-1]
        pipe.send((False, f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"))


def _turn(opened, count: int) -> tuple[np.ndarray, np.ndarray]:
    wall_ns, cpu_ns = np.empty(count, np.int64), np.empty(count, np.int64)
    opened.run()
    for i in range(count):
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        opened.run()
        cpu_ns[i], wall_ns[i] = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    return wall_ns / 1e6, cpu_ns / 1e6


def _report(opened) -> dict:
    peak = peak_bytes()
    counts = opened.spike_counts() if opened.spike_counts else None
    return {"outputs": opened.run(), "facts": opened.facts, "peak_bytes": peak, "spike_counts": counts}
