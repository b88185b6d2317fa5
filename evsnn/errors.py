"""The errors of evsnn: one tree, one sentence a cause.

::

    EvsnnError
    ├── NetworkError        a network that cannot be: a shape, a value, a connection
    ├── WeightsError        a weights file that is refused, or cannot be written
    ├── InputError          images or labels that do not fit the network
    ├── ModelError          a model file or its ANN that cannot be converted
    ├── RunError            a run that cannot be: its steps, threads, arithmetic or memory
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


class EvsnnError(Exception):
    """Base of all errors raised on purpose by evsnn.

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
            f"{word} {value}" for word, value in (("got", got), ("expected", expected)) if value is not None
        ]
        if found:
            message += ": " + ", ".join(found)
        if hint:
            message += f". {hint[0].upper()}{hint[1:]}"
        super().__init__(message)

    def at(self, where: str) -> EvsnnError:
        """The same error with its place, for those who raised it without knowing that."""
        return type(self)(self.what, where=where, got=self.got, expected=self.expected, hint=self.hint)


class NetworkError(EvsnnError, ValueError):
    """A network that cannot be: a shape, a value or a connection."""


class WeightsError(EvsnnError, OSError):
    """A weights file that is refused, or cannot be written."""

    def __str__(self) -> str:  # OSError would print its own fields
        return str(self.args[0])


class InputError(EvsnnError, ValueError):
    """Images or labels that do not fit the network."""


class ModelError(EvsnnError, ValueError):
    """A model file, or the ANN in it, that cannot be converted."""


class RunError(EvsnnError, ValueError):
    """A run that cannot be: its steps, threads, arithmetic or memory."""


class MissingExtraError(EvsnnError, ImportError):
    """An optional package that is not installed."""
