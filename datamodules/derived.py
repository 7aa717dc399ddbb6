"""Arrays computed once from a large file of lines, kept in the cache folder and mapped into memory."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.fetch import cache_folder
from retrieval.errors import InputError
from retrieval.files import require_file
from retrieval.progress import delayed_progress

IntArray = np.ndarray[Any, np.dtype[np.int64]]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINES_PER_UPDATE = 8192


def derived_array(path: str | Path, form: str, make: Callable[[], IntArray]) -> IntArray:
    """An array that depends on a file's content alone: read from the cache, or made and put there.

    The key is the file's absolute path, size and time of change, and `form`. Of several processes that want the same
    array, one makes it and the others wait; a killed one leaves nothing that is read later.

    Args:
        path: the file.
        form: names what is computed and how, including the format that was checked, e.g. ``lines 1024 pairs``.
        make: computes the array; it may raise InputError.

    Returns:
        The array, mapped from disk, read-only.

    Raises:
        InputError: no file, it changed while it was read, or the cache folder cannot be written.
    """
    from filelock import FileLock, Timeout

    path = require_file(path).resolve()
    state = _state(path)
    key = hashlib.blake2b(f"{path}\0{state}\0{form}".encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    target = cache_folder() / "index" / f"{key}.npy"
    if target.is_file():
        return _mapped(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{key}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that reads {path.name}", file=sys.stderr)
            lock.acquire()
        try:
            if not target.is_file():
                array = make()
                if _state(path) != state:
                    raise InputError("the file changed while it was read: run it again when it is complete", path)
                _save(array, target)
        finally:
            lock.release()
    except OSError as error:
        raise InputError(
            f"cannot keep the index of {path.name}: {error.strerror or error}; "
            "free some space, or set POTSTILL_CACHE to a folder that can be written",
            target.parent,
        ) from error
    return _mapped(target)


def scan_lines(path: Path, expected: str = "text") -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file that are not empty, with a progress bar where that takes long.

    Args:
        path: the file.
        expected: what a line holds, for the error message.

    Yields:
        Line number from 1, offset in bytes, and the line without its end (and without a byte order mark).

    Raises:
        InputError: there is no such line.
    """
    found, offset, shown = False, 0, 0
    with path.open("rb") as file, delayed_progress(f"read {path.name}", path.stat().st_size) as advance:
        for number, raw in enumerate(file, start=1):
            if line := clean_line(raw, number):
                found = True
                yield number, offset, line
            offset += len(raw)
            if number % _LINES_PER_UPDATE == 0:
                advance(offset - shown)
                shown = offset
    if not found:
        raise InputError(f"the file is empty, expected lines of {expected}", path)


def clean_line(raw: bytes, number: int) -> bytes:
    """A line without its end and, if it is line 1, a byte order mark; empty where only white space is left."""
    line = (raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw).rstrip(b"\r\n")
    return b"" if line.isspace() else line


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _mapped(path: Path) -> IntArray:
    return np.asarray(np.load(path, mmap_mode="r"))


def _save(array: IntArray, target: Path) -> None:
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, array)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
