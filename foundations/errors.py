"""The error for bad input: what is wrong, where, and what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """A file, option or text that a user gave cannot be used; scripts print it and exit with status 2.

    Args:
        message: what is wrong and what was expected, in one or two lines.
        path: the file, if there is one.
        line: its line, from 1; None or 0 where it is not known.
    """

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        super().__init__(where + message)
        self.path = path
        self.line = line or None


class StoppedError(RuntimeError):
    """A run cannot go on, though nothing that the user gave was wrong; scripts print it and exit with its status.

    Args:
        message: why, and what to do.
        status: the exit status: 1, or that of a signal.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def as_input_error(prefix: str = "", path: str | Path | None = None) -> Iterator[None]:
    """Turn a ValueError, such as a constructor raises over an option, into an `InputError` for the user.

    Args:
        prefix: put before the message, e.g. ``--metrics: ``.
        path: the file that the option stands in, if there is one.

    Raises:
        InputError: the block raised a ValueError. An InputError passes as it is.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{prefix}{error}", path) from error
