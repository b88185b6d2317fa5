"""The errors of evsnn: one tree, one sentence per cause.

::

    EvsnnError
    ├── NetworkError        a network that is not valid: a shape, a value, a connection
    ├── WeightsError        a weights file that is refused, or cannot be written
    ├── InputError          images or labels that do not fit the network
    ├── ModelError          a model file or its ANN that cannot be converted
    ├── RunError            a run that is not possible: its steps, threads, arithmetic or memory
    └── MissingExtraError   an optional package that is not installed

Every message says what is wrong, where, what was found, what was expected and what to do.
"""

from __future__ import annotations

__all__ = [
    "EvsnnError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "NetworkError",
    "RunError",
    "WeightsError",
]


_LONGEST = 1000
"""Characters of a value in a message."""


class EvsnnError(Exception):
    """The base of all errors that evsnn raises on purpose.

    Parameters
    ----------
    what : str
        What is wrong, a short sentence without a full stop.
    where : str, optional
        The layer, file or argument it is about; it stands first in the message.
    got, expected : object, optional
        What was found and what would have been right.
    hint : str, optional
        What to do about it.

    Examples
    --------
    >>> print(evsnn.EvsnnError("the file is empty", where="net.h5", got="0 bytes", hint="write it again"))
    net.h5: the file is empty: got 0 bytes. Write it again
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ):
        self.what, self.where, self.got, self.expected, self.hint = what, where, got, expected, hint
        message = f"{where}: {what}" if where else what
        found = [
            f"{word} {_short(value)}"
            for word, value in (("got", got), ("expected", expected))
            if value is not None
        ]
        if found:
            message += ": " + ", ".join(found)
        if hint:
            message += f". {hint[0].upper()}{hint[1:]}"
        super().__init__(message)

    def at(self, where: str) -> EvsnnError:
        """The same error with its place, for code that raised it without knowing the place.

        Parameters
        ----------
        where : str
            The layer, file or argument that the error is about.

        Returns
        -------
        EvsnnError
            A new error of the same class.
        """
        return type(self)(self.what, where=where, got=self.got, expected=self.expected, hint=self.hint)


def _short(value: object) -> str:
    """A value as text, cut if it is long: files can hold a number of a million digits."""
    try:
        words = str(value)
    except ValueError:  # Python writes no integers of more than 4300 digits
        words = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return words if len(words) <= _LONGEST else words[: _LONGEST - 3] + "..."


class NetworkError(EvsnnError, ValueError):
    """A network that is not valid: a shape, a value or a connection is wrong."""


class WeightsError(EvsnnError, OSError):
    """A weights file that is refused, or that cannot be written."""

    def __str__(self) -> str:  # OSError would print its own fields
        return str(self.args[0])


class InputError(EvsnnError, ValueError):
    """Images or labels that do not fit the network."""


class ModelError(EvsnnError, ValueError):
    """A model file, or the ANN in it, that cannot be converted."""


class RunError(EvsnnError, ValueError):
    """A run that is not possible: its steps, threads, arithmetic or memory do not allow it."""


class MissingExtraError(EvsnnError, ImportError):
    """An optional package that is not installed."""
