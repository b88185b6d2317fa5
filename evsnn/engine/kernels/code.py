"""Machine code of kernels: object files on disk, which numba makes and llvmlite alone loads.

numba takes most of a second to be imported and to find its own cached code; an object file takes
milliseconds. A file is found by all that decides the code: the kernel and what it is specialised for, the
sources of this package, the versions of numba and llvmlite, the CPU and its features, and numba's settings. A
file is run only if it belongs to this user (or root), nobody else can write to it or to its folder, and its
digest is right. Any other file is reported once, and the kernel is compiled again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import json
import logging
import os
import platform
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...files.atomic import replace_file
from ...files.regular import open_regular
from .selectors import Events, Vectors

__all__ = ["Kernel", "Store", "compiler_off", "missing", "specialise", "store"]

_LOG = logging.getLogger("evsnn")
_FORMAT = 1
_HOMELESS = "there is no home folder to keep it in"
_LARGEST = 16 << 20
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_KEPT_DAYS = 30
"""Code of another environment (an older evsnn, numba or Python) that was not used for so long is removed."""
_FOLDER_NAME = re.compile(r"[0-9a-f]{16}")
_FILE_NAME = re.compile(r"[\w.-]+\.(o|json|part)")


@dataclass(frozen=True)
class Kernel:
    """A kernel and what it is specialised for.

    Parameters
    ----------
    name : str
        "module.function" in this package.
    selectors : tuple of Vectors or Events
        Its first arguments, which carry no data.
    n_arguments : int
        How many int64 arguments follow.
    counts : bool
        Whether it returns a number.
    """

    name: str
    selectors: tuple[Vectors | Events, ...]
    n_arguments: int
    counts: bool = False

    @property
    def key(self) -> str:
        return f"{self.name}({', '.join(map(str, self.selectors))}; {self.n_arguments})"


def compiler_off() -> bool:
    """Whether kernels run as plain Python, which numba's own switch decides."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


@functools.cache
def specialise(kernel: Kernel) -> Callable[..., int]:
    """A function of the kernel's integers; it releases the GIL while it runs."""
    if compiler_off():
        from .jit import function_of

        return functools.partial(function_of(kernel.name), *kernel.selectors)
    found = store().load(kernel)
    if found is None:
        from .jit import compiled

        code, symbol, alone = compiled(kernel.name, kernel.selectors, kernel.n_arguments)
        if alone:
            store().save(kernel, code, symbol)
    else:
        code, symbol = found
    return native(code, symbol, kernel)


def missing(kernels: Iterable[Kernel]) -> bool:
    """Whether any of the kernels would have to be compiled."""
    return not compiler_off() and any(store().load(kernel) is None for kernel in kernels)


_ENGINES: list = []  # machine code lives only as long as the engine that has loaded it


_NOWHERE = (
    ctypes.c_int64 * 2
)()  # targets for the value of a kernel that returns none, and for an error that never comes
_NO_VALUE, _NO_ERROR = (ctypes.addressof(_NOWHERE) + 8 * i for i in range(2))


def native(code: bytes, symbol: str, kernel: Kernel) -> Callable[..., int]:
    """The function in an object file; numba's calling convention returns its value through a pointer."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target().create_target_machine(jit=True))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    nothing = [None] * len(kernel.selectors)
    pointers = [ctypes.c_void_p] * (2 + len(nothing))
    function = ctypes.CFUNCTYPE(ctypes.c_int, *pointers, *[ctypes.c_int64] * kernel.n_arguments)(
        engine.get_function_address(symbol)
    )
    if not kernel.counts:
        return functools.partial(function, _NO_VALUE, _NO_ERROR, *nothing)

    def count(*arguments: int) -> int:
        value = ctypes.c_int64()  # one per call, because threads share the function
        function(ctypes.byref(value), _NO_ERROR, *nothing, *arguments)
        return value.value

    return count


@functools.cache
def _target():
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple()


@functools.cache
def store() -> Store:
    """This user's store."""
    home = _home()
    return Store(home or Path(), environment(), None if home else _HOMELESS)


def _home() -> Path | None:
    """The folder for kept code: EVSNN_CACHE_DIR, else "evsnn" in the user's folder of caches, if it is known.

    As XDG says, a folder of caches that is not absolute is ignored.
    """
    named = os.path.expanduser(os.environ.get("EVSNN_CACHE_DIR", ""))
    if not named:
        caches = os.environ.get("XDG_CACHE_HOME", "")
        named = os.path.join(caches if os.path.isabs(caches) else os.path.expanduser("~/.cache"), "evsnn")
    return None if named.startswith("~") else Path(named)


def environment() -> str:
    """All that decides the machine code of kernels, as text."""
    import llvmlite
    import llvmlite.binding as llvm

    features = ",".join(
        f"{'+' if on else '-'}{name}" for name, on in sorted(llvm.get_host_cpu_features().items())
    )
    settings = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS")
    )
    facts = (
        _FORMAT,
        source_digest(),
        _numba_version(),
        llvmlite.__version__,
        sys.version_info[:3],
        platform.machine(),
        llvm.get_host_cpu_name(),
        features,
        *settings,
    )
    return "; ".join(map(str, facts))


def source_digest() -> str:
    """A digest of this package's sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _numba_version() -> str:
    """numba's version; numba is not imported for it."""
    try:
        spec = importlib.util.find_spec("numba")
    except ValueError:  # somebody keeps it from being imported
        spec = None
    try:
        return (Path(spec.origin).parent / "_version.py").read_text() if spec and spec.origin else "none"
    except OSError:  # a package of that name that is none, whose import fails
        return "none"


class Store:
    """Object files in a folder, one per kernel: a line of JSON, then the code.

    Parameters
    ----------
    home : Path
        It holds a folder per environment.
    environment : str
        All that decides the code, besides the kernel.
    trouble : str, optional
        Why nothing is kept. None: nothing speaks against it yet.
    """

    def __init__(self, home: Path, environment: str, trouble: str | None = None):
        self.home, self.environment = home, environment
        self.folder = home / hashlib.sha256(environment.encode()).hexdigest()[:16]
        self._loaded: dict[Kernel, tuple[bytes, str] | None] = {}
        self._said: set[str] = set()
        self._notes: dict[str, dict[str, float]] = {}
        self._swept = False
        self.trouble = trouble or self._prepared()

    def _prepared(self) -> str | None:
        """Make the folder, and return why it cannot be used, if it cannot."""
        try:
            self.home.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.home, self.folder):  # one by one: only the last of `parents` gets the mode
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            return f"{self.folder} cannot be made ({error.strerror})"
        trouble = next(
            (
                trouble
                for path in (*_above(self.home), self.home, self.folder)
                if (
                    trouble := _distrusted(path, stat.S_ISDIR, is_parent=path not in (self.home, self.folder))
                )
            ),
            None,
        )
        if trouble is None:
            with contextlib.suppress(OSError):  # its time says when it was used last, to a day
                if time.time() - os.stat(self.folder).st_mtime > 86_400:
                    os.utime(self.folder)
        return trouble

    def path(self, kernel: Kernel) -> Path:
        return self.folder / f"{kernel.name}-{hashlib.sha256(kernel.key.encode()).hexdigest()[:20]}.o"

    def load(self, kernel: Kernel) -> tuple[bytes, str] | None:
        """The code and its symbol, if there is a file that can be trusted."""
        if kernel not in self._loaded:
            self._loaded[kernel] = None if self.trouble else self._read(kernel)
        return self._loaded[kernel]

    def _read(self, kernel: Kernel) -> tuple[bytes, str] | None:
        path = self.path(kernel)
        try:
            with open(open_regular(path, os.O_NOFOLLOW), "rb") as file:
                trouble = _distrusted_status(os.fstat(file.fileno()), path, stat.S_ISREG)
                content = b"" if trouble else file.read(_LARGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            trouble, content = f"{path} cannot be read ({error.strerror})", b""
        if not trouble:
            line, _, code = content.partition(b"\n")
            try:
                said = json.loads(line)
                if (
                    said["key"] == kernel.key
                    and said["environment"] == self.environment
                    and said["sha256"] == hashlib.sha256(code).hexdigest()
                ):
                    return code, str(said["symbol"])
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
            trouble = f"{path} is damaged"
        self._say(trouble)
        return None

    def save(self, kernel: Kernel, code: bytes, symbol: str) -> None:
        """Keep code, all or nothing; two processes may do so at once.

        If code cannot be kept, that is reported, and the program goes on.
        """
        self._loaded[kernel] = code, symbol
        if self.trouble:
            self._say(f"{self.trouble}; every start compiles anew, EVSNN_CACHE_DIR can name another folder")
            return
        header = {
            "key": kernel.key,
            "symbol": symbol,
            "sha256": hashlib.sha256(code).hexdigest(),
            "environment": self.environment,
        }
        try:
            replace_file(
                self.path(kernel), json.dumps(header).encode() + b"\n" + code, mode=0o600, follow=False
            )
            self._sweep()
        except OSError as error:
            self._say(
                f"{self.folder} cannot be written to ({error.strerror}); every start compiles anew,"
                " EVSNN_CACHE_DIR can name another folder"
            )

    def _sweep(self) -> None:
        """Remove code of other environments that was not used for long, once per process that compiles.

        Only folders that are named like ours and belong to this user are looked into, only files that are
        named like ours are removed, and no link is followed.
        """
        if self._swept:
            return
        self._swept = True
        before = time.time() - _KEPT_DAYS * 86_400
        with contextlib.suppress(OSError):
            for folder in self.home.iterdir():
                status = folder.lstat()
                known = _FOLDER_NAME.fullmatch(folder.name) and folder != self.folder
                if known and stat.S_ISDIR(status.st_mode) and _is_ours(status) and status.st_mtime < before:
                    _remove_folder(folder)

    def notes(self, name: str) -> dict[str, float]:
        """Numbers that were measured on this CPU; none if there are none, or if they cannot be trusted."""
        path = self.folder / f"{name}.json"
        if self.trouble or _distrusted(path, stat.S_ISREG):
            return dict(self._notes.get(name, {}))
        try:
            known = json.loads(path.read_bytes()[:_LARGEST])
            return {str(k): float(v) for k, v in known.items()} if isinstance(known, dict) else {}
        except (OSError, ValueError, TypeError, OverflowError, RecursionError):
            return {}

    def note(self, name: str, numbers: dict[str, float]) -> None:
        """Keep numbers, also for other processes if the folder can be written to."""
        self._notes[name] = dict(numbers)
        if not self.trouble:
            with contextlib.suppress(OSError):
                replace_file(
                    self.folder / f"{name}.json", json.dumps(numbers).encode(), mode=0o600, follow=False
                )

    def _say(self, trouble: str) -> None:
        if trouble not in self._said:
            self._said.add(trouble)
            _LOG.warning("evsnn: compiled code is not used: %s", trouble)


def _is_ours(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _remove_folder(folder: Path) -> None:
    """Remove a folder of kept code; if it holds anything else, that stays, and so does the folder."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _FILE_NAME.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
        folder.rmdir()


def _above(home: Path) -> list[Path]:
    """The folders in which somebody could put another folder in the place of `home`: all that its path names,
    and those that links in it lead to.
    """
    above = Path(os.path.abspath(home)).parents
    return list(dict.fromkeys(folder for at in above for folder in (at.resolve(), *at.resolve().parents)))


def _distrusted(path: Path, is_kind: Callable[[int], bool], is_parent: bool = False) -> str | None:
    try:
        return _distrusted_status(os.lstat(path), path, is_kind, is_parent)
    except OSError as error:
        return f"{path} cannot be used ({error.strerror})"


def _distrusted_status(
    status: os.stat_result, path: Path, is_kind: Callable[[int], bool], is_parent: bool = False
) -> str | None:
    """Why a file or folder cannot be trusted: it is a link or somebody else's, or others can write to it.

    A folder above may be written to by its group; and by all, if its sticky bit keeps others from renaming
    what is in it, as that of /tmp.
    """
    if stat.S_ISLNK(status.st_mode):
        return f"{path} is a link"
    if not is_kind(status.st_mode):
        return f"{path} is of another kind"
    if status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user"
    sticky = is_parent and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWOTH if is_parent else _OTHERS_CAN_WRITE) and not sticky:
        return f"{path} can be written to by others (chmod go-w makes it usable)"
    return None
