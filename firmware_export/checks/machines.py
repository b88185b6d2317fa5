"""Compilers and emulators: build a program for a core, run it, and count.

Everything here uses what is installed and nothing else. QEMU counts instructions, not cycles, through a
plugin of ours (emulator/count.c) that the host's compiler builds on demand; simavr counts cycles.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evsnn.errors import RunError

__all__ = ["MACHINES", "Machine", "Measured", "build", "host_compiler", "measure"]

EMULATOR = Path(__file__).parents[1] / "emulator"
_K, _M = 1 << 10, 1 << 20
_TIME_LIMIT_S = 600


@dataclass(frozen=True)
class Machine:
    """A core that programs can be built for and run on.

    Parameters
    ----------
    name : str
    compiler : str
    flags : tuple of str
    start : str
        The file in `emulator` that starts the program.
    emulator : tuple of str
        Its command; none: the host itself.
    memory : (ROM origin, length, RAM origin, length), optional
    """

    name: str
    compiler: str
    flags: tuple[str, ...]
    start: str
    emulator: tuple[str, ...] = ()
    memory: tuple[int, int, int, int] | None = None

    @property
    def counts(self) -> str:
        return "cycles" if self.emulator and self.emulator[0] == "simavr" else "instructions"

    def missing(self) -> str | None:
        """A program that is not installed."""
        return next(
            (tool for tool in (self.compiler, *self.emulator[:1]) if shutil.which(tool) is None), None
        )


def _cortex(
    name: str, board: str, *flags: str, memory: tuple[int, int, int, int] = (0, 4 * _M, 0x20000000, 4 * _M)
) -> Machine:
    return Machine(
        name,
        "arm-none-eabi-gcc",
        (f"-mcpu={name}", "-mthumb", *flags),
        "cortex_m.c",
        ("qemu-system-arm", "-M", board),
        memory,
    )


MACHINES = {
    machine.name: machine
    for machine in (
        _cortex("cortex-m0", "microbit", memory=(0, 256 * _K, 0x20000000, 16 * _K)),
        _cortex("cortex-m0plus", "mps2-an385"),  # QEMU has no board with one: a Cortex-M3 runs its code
        _cortex("cortex-m3", "mps2-an385"),
        _cortex("cortex-m4", "mps2-an386", "-mfloat-abi=soft"),
        _cortex("cortex-m7", "mps2-an500", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
        _cortex(
            "cortex-m33", "mps2-an505", "-mfloat-abi=soft", memory=(0x10000000, 4 * _M, 0x38000000, 4 * _M)
        ),
        _cortex("cortex-m55", "mps3-an547", "-mfloat-abi=hard", memory=(0, 512 * _K, 0x30000000, 512 * _K)),
        Machine(
            "rv32",
            "riscv64-unknown-elf-gcc",
            ("-march=rv32imac", "-mabi=ilp32", "-mcmodel=medany"),
            "riscv.c",
            ("qemu-system-riscv32", "-bios", "none", "-M", "virt"),
            (0x80000000, 8 * _M, 0x80800000, 8 * _M),
        ),
        Machine(
            "avr",
            "avr-gcc",
            ("-mmcu=atmega2560", "-mrelax"),
            "avr.c",
            ("simavr", "-m", "atmega2560", "-f", "16000000"),
        ),
        Machine("powerpc", "powerpc-linux-gnu-gcc", ("-static",), "host.c", ("qemu-ppc",)),
    )
}


@dataclass(frozen=True)
class Measured:
    """What a run on a machine showed.

    Parameters
    ----------
    text : str
        What the program wrote.
    counted : tuple of int
        Instructions (or cycles) of each sample.
    flash_bytes, ram_bytes : int
        Of the whole program, its samples and start-up code included.
    stack_bytes : int, optional
        The deepest, from the call that runs the network on.
    loads, stores : tuple of int
    """

    text: str
    counted: tuple[int, ...]
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int | None
    loads: tuple[int, ...] = field(default=(), repr=False)
    stores: tuple[int, ...] = field(default=(), repr=False)


def host_compiler() -> str:
    """The C compiler of this computer.

    Raises
    ------
    RunError
        Without one.
    """
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return name
    raise RunError(
        "there is no C compiler",
        where="--check",
        expected="cc, gcc or clang on the PATH",
        hint="install one, or leave --check out",
    )


def _run(command: Sequence[str | Path], what: str, accepted: Sequence[int] = (0,)) -> str:
    try:
        done = subprocess.run(
            [str(c) for c in command],
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT_S,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{what} took longer than {_TIME_LIMIT_S} s", got=str(command[0])) from error
    if done.returncode not in accepted:
        raise RunError(
            f"{what} failed",
            got=f"{command[0]}, status {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}",
        )
    return done.stdout + done.stderr


def build(
    machine: Machine,
    source: Path,
    folder: Path,
    includes: Sequence[Path] = (),
    flags: Sequence[str] = ("-O2",),
) -> Path:
    """Compile and link a program for a machine; gives the file."""
    program = folder / f"{source.stem}.{machine.name}"
    options = [
        *machine.flags,
        *flags,
        "-std=c99",
        "-ffunction-sections",
        "-fdata-sections",
        "-Wl,--gc-sections",
        *(f"-I{d}" for d in (EMULATOR, *includes)),
    ]
    if machine.memory is not None:
        stack = (1 if machine.memory[3] <= 16 * _K else 64) * _K
        names = zip(("ROM0", "ROML", "RAM0", "RAML", "STACKL"), (*machine.memory, stack))
        options += [
            "-nostartfiles",
            "-Wl,--no-warn-rwx-segments",
            f"-T{EMULATOR / 'memory.ld'}",
            *(f"-Wl,--defsym={name}={value:#x}" for name, value in names),
        ]
        options += (
            ["--specs=picolibc.specs"]
            if machine.compiler.startswith("riscv")
            else ["--specs=nano.specs", "--specs=nosys.specs"]
        )
    _run(
        [machine.compiler, *options, EMULATOR / machine.start, source, "-o", program],
        f"compiling for {machine.name}",
    )
    return program


def _plugin(folder: Path) -> Path:
    plugin = folder / "count.so"
    if not plugin.exists():
        _run(
            [host_compiler(), "-O2", "-shared", "-fPIC", EMULATOR / "count.c", "-o", plugin],
            "compiling the counter for QEMU",
        )
    return plugin


def measure(machine: Machine, program: Path, folder: Path) -> Measured:
    """Run a program on a machine."""
    prefix = machine.compiler.removesuffix("gcc") if machine.compiler.endswith("-gcc") else ""
    sections = dict(
        re.findall(
            r"^(\.\S+)\s+(\d+)", _run([f"{prefix}size", "-A", program], "measuring the size"), re.MULTILINE
        )
    )
    size = {name: int(n) for name, n in sections.items()}
    flash = sum(size.get(name, 0) for name in (".text", ".rodata", ".data", ".ARM.exidx"))
    ram = size.get(".data", 0) + size.get(".bss", 0)
    if machine.memory is None:
        command: list[str | Path] = [*machine.emulator, program]
        text = re.sub(r"\x1b\[[0-9;]*m|\r", "", _run(command, f"running on {machine.name}"))
        return Measured(
            re.sub(r"\.\.?$", "", text, flags=re.MULTILINE),
            tuple(map(int, re.findall(r"cycles (\d+)", text))),
            flash,
            ram,
            None,
        )
    symbols = {
        line.split()[-1]: int(line.split()[0], 16)
        for line in _run([f"{prefix}nm", program], "reading symbols").splitlines()
        if len(line.split()) == 3
    }
    counts = folder / f"{program.name}.counts"
    marks = ",".join(
        f"{name}={symbols[symbol] & ~1:#x}"
        for name, symbol in (
            ("begin", "machine_begin"),
            ("end", "machine_end"),
            ("low", "stack_low"),
            ("top", "stack_top"),
        )
    )
    quiet = (
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        "none",
        "-semihosting-config",
        "enable=on,target=native",
    )
    text = _run(
        [*machine.emulator, *quiet, "-kernel", program, "-plugin", f"{_plugin(folder)},{marks},out={counts}"],
        f"running on {machine.name}",
    )
    regions = [
        tuple(map(int, row))
        for row in re.findall(r"instructions (\d+) loads (\d+) stores (\d+) stack (\d+)", counts.read_text())
    ]
    instructions, loads, stores, stack = zip(*regions) if regions else ((), (), (), (0,))
    return Measured(text, instructions, flash, ram, max(stack), loads, stores)
