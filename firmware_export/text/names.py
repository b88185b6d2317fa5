"""Names that may stand in C and C++."""

from __future__ import annotations

import re

from evsnn.errors import RunError

__all__ = ["check_name", "name_from"]

LONGEST = 32

_PLAIN = re.compile(r"[a-z][a-z0-9_]*")
_WORDS = (
    "alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor bool break"
    " case catch char char8_t char16_t char32_t class co_await co_return co_yield compl concept const"
    " const_cast consteval constexpr constinit continue decltype default delete do double dynamic_cast else"
    " enum explicit export extern false final float for friend goto if import inline int long module mutable"
    " namespace new noexcept not not_eq nullptr operator or or_eq override private protected public reflexpr"
    " register reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast"
    " struct switch synchronized template this thread_local throw true try typedef typeid typename typeof"
    " union unsigned using virtual void volatile wchar_t while xor xor_eq abs bit boolean byte constrain"
    " degrees delay interrupts linux loop main map max memset min millis radians random round setup sq unix"
    " word evsnn errno near far arm avr xtensa "
)
"""Words of C up to 11 and C++ up to 23, and what <stdint.h>, Arduino's core and compilers for its boards
define in lower case.
"""
_HEADERS = (
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg"
    " stdatomic stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string tgmath threads time"
    " uchar wchar wctype alloca endian fcntl features malloc memory poll pthread sched semaphore strings"
    " termios unistd values arduino binary client eeprom ethernet hardwareserial hid ipaddress keyboard mouse"
    " pins_arduino print printable sd server servo softwareserial spi stepper stream udp usbapi usbcore"
    " usbdesc variant wcharacter wifi wire wstring croutine freertos list portable projdefs queue sdkconfig"
    " semphr task timers"
)
"""Headers of C, POSIX, Arduino and FreeRTOS, which one of the same name would hide, on disks that take upper
case for lower, too.
"""
_RESERVED = frozenset(f"{_WORDS} {_HEADERS}".split())


def check_name(name: str, where: str = "--name") -> str:
    """A name for a network's header and symbols: a short C identifier in lower case that nobody else uses.

    Raises
    ------
    RunError
        If it is not one.
    """
    expected = f"a lower-case letter, then letters a-z, digits and _, {LONGEST} characters at most"
    if not isinstance(name, str) or not _PLAIN.fullmatch(name) or len(name) > LONGEST:
        raise RunError("this is no name for a header", where=where, got=ascii(name)[:60], expected=expected)
    if _means_something(name):
        what = "this name means something else in C, C++, a library, the runtime or another network's header"
        raise RunError(
            what, where=where, got=repr(name), expected="another", hint=f"try --name {_free(name)}"
        )
    return name


def _means_something(name: str) -> bool:
    """Whether a name means something else in C, C++, a library, the runtime, or another network's header,
    whose stages end in _s and a number.
    """
    return name in _RESERVED or re.search(r"__|^evsnn_|_$|_t$|_s[0-9]+$", name) is not None


def _free(name: str) -> str:
    """A name like it that means nothing else."""
    plain = re.sub(r"_+", "_", re.sub(r"^(evsnn_+|evsnn$)+", "", name)).strip("_0123456789")
    return f"{plain[: LONGEST - 4].rstrip('_') or 'my'}_net"


def name_from(path: str) -> str:
    """A name made of a file's: what C cannot have becomes _.

    Raises
    ------
    RunError
        If nothing usable is left.
    """
    stem = re.split(r"[/\\]", path)[-1].rsplit(".", 1)[0].lower()
    plain = re.sub(r"_+", "_", re.sub(r"[^a-z0-9_]", "_", stem)).strip("_")[:LONGEST].strip("_")
    if plain and plain[0].isdigit():
        plain = f"net_{plain}"[:LONGEST].strip("_")
    if plain and _means_something(plain):
        plain = _free(plain)
    if not plain:
        raise RunError(
            "no name for the header follows from the file's",
            where=ascii(path)[:80],
            hint="give one with --name",
        )
    return check_name(plain, ascii(path)[:80])
