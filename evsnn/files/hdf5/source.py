"""Checked bytes of a file: every read stays inside it, and the amount of metadata that is read is limited."""

from __future__ import annotations

import struct
from io import BufferedReader, BytesIO

__all__ = ["Cursor", "FormatError", "NOWHERE", "Source", "Stream", "check", "checksum"]

Stream = BufferedReader | BytesIO
NOWHERE = (1 << 64) - 1  # the "undefined address"
MAX_METADATA_BYTES = 8 << 20  # per walk; 4,000 layers take 4 MB


class FormatError(Exception):
    """What is wrong with the bytes, in a few words; `gate` says where."""

    def __init__(self, what: str, *, got: object = None, expected: object = None, hint: str | None = None):
        super().__init__(what)
        self.what, self.got, self.expected, self.hint = what, got, expected, hint


class Cursor:
    """Bytes, taken from the front piece by piece."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        start = self.position
        if not 0 <= n <= len(self.data) - start:
            raise FormatError(
                "the file is damaged: a piece of metadata is too short", hint="copy or download it again"
            )
        self.position = start + n
        return self.data[start : start + n]

    def number(self, n: int = 1) -> int:
        """The next `n` bytes as an unsigned integer; 8 are an address or a length."""
        return int.from_bytes(self.take(n), "little")

    def expect(self, *values: int, what: str) -> int:
        """The next byte, one of `values`."""
        found = self.number()
        if found not in values:
            raise FormatError(
                f"{what} is of an unknown version",
                got=found,
                expected=" or ".join(map(str, values)),
                hint="write it with h5py's defaults, or copy it again",
            )
        return found


class Source:
    """The bytes of an open file.

    Parameters
    ----------
    stream : binary file
        Reads from it are complete unless it ends.
    size : int
        Its length in bytes.
    """

    def __init__(self, stream: Stream, size: int):
        self._stream = stream
        self.size = size
        self._budget = MAX_METADATA_BYTES

    def metadata(self, address: int, n: int) -> bytes:
        """`n` bytes of metadata."""
        if not 0 <= address <= self.size - n:
            raise FormatError(
                "the file is damaged: metadata lies outside it",
                got=f"{n} bytes at {address}",
                expected=f"within {self.size}",
                hint="copy or download it again",
            )
        self._budget -= n + 16
        if self._budget < 0:
            raise FormatError(
                "the file holds too much metadata", expected=f"at most {MAX_METADATA_BYTES} bytes"
            )
        data = bytearray(n)
        self.read_into(memoryview(data), address)
        return bytes(data)

    def block(self, address: int, n: int, signature: bytes) -> Cursor:
        """A cursor in a block of metadata, between its `signature` and the checksum at its end."""
        data = self.metadata(address, n)
        if not data.startswith(signature):
            raise FormatError(
                "the file is damaged: a block has the wrong signature",
                got=data[:4],
                expected=signature,
                hint="copy or download it again",
            )
        check(data[:-4], data[-4:])
        cursor = Cursor(data[:-4])
        cursor.take(len(signature))
        return cursor

    def read_into(self, buffer: memoryview, address: int) -> None:
        """Fill `buffer` with the bytes from `address` on."""
        self._stream.seek(address)
        if self._stream.readinto(buffer) != buffer.nbytes:
            raise FormatError(
                "the file is cut short", got=f"{self.size} bytes", hint="copy or download it again"
            )


def check(data: bytes, stored: bytes) -> None:
    """Refuse `data` whose checksum is not `stored`."""
    if checksum(data) != int.from_bytes(stored, "little"):
        raise FormatError(
            "the file is damaged: a checksum of its metadata is wrong", hint="copy or download it again"
        )


def checksum(data: bytes) -> int:
    """Bob Jenkins's lookup3 hash with initial value 0.

    It is ``hashlittle`` of https://burtleburtle.net/bob/c/lookup3.c.
    """
    mask = 0xFFFFFFFF
    n = len(data)
    a = b = c = (0xDEADBEEF + n) & mask
    if n == 0:
        return c
    words = struct.unpack(f"<{3 * -(-n // 12)}I", data.ljust(12 * -(-n // 12), b"\0"))
    last = len(words) - 3
    for i in range(0, last, 3):
        a = (a + words[i]) & mask
        b = (b + words[i + 1]) & mask
        c = (c + words[i + 2]) & mask
        a = ((a - c) & mask) ^ (c << 4 & mask | c >> 28)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ (a << 6 & mask | a >> 26)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ (b << 8 & mask | b >> 24)
        b = (b + a) & mask
        a = ((a - c) & mask) ^ (c << 16 & mask | c >> 16)
        c = (c + b) & mask
        b = ((b - a) & mask) ^ (a << 19 & mask | a >> 13)
        a = (a + c) & mask
        c = ((c - b) & mask) ^ (b << 4 & mask | b >> 28)
        b = (b + a) & mask
    a, b, c = (a + words[last]) & mask, (b + words[last + 1]) & mask, (c + words[last + 2]) & mask
    c = ((c ^ b) - (b << 14 & mask | b >> 18)) & mask
    a = ((a ^ c) - (c << 11 & mask | c >> 21)) & mask
    b = ((b ^ a) - (a << 25 & mask | a >> 7)) & mask
    c = ((c ^ b) - (b << 16 & mask | b >> 16)) & mask
    a = ((a ^ c) - (c << 4 & mask | c >> 28)) & mask
    b = ((b ^ a) - (a << 14 & mask | a >> 18)) & mask
    return ((c ^ b) - (b << 24 & mask | b >> 8)) & mask
