"""Arrays computed once from a large file of lines, kept in the cache folder and mapped into memory."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from foundations.errors import InputError
from foundations.files import require_file
from foundations.progress import delayed_progress

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
    from filelock import FileLock

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


OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
"""Suffix of a compressed file -> what opens it."""

_BLOCK = 1 << 20


def unpacked(path: str | Path) -> Path:
    """The file itself, or its unpacked copy in the cache folder where it is compressed (.gz, .bz2).

    The copy is made anew when the file has changed. Processes that want the same one wait for each other.

    Raises:
        InputError: no file, one that is damaged or not compressed, or no room in the cache folder.
    """
    path = require_file(path)
    if path.suffix not in OPENERS:
        return path
    stat = path.stat()
    key = hashlib.blake2b(f"{path.resolve()}\0{stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=12).hexdigest()
    target = cache_folder() / "unpacked" / key / path.stem
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(".lock")):
            if not target.is_file():
                _unpack(path, target)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"the file is damaged or not compressed as its name says: {error}", path) from error
    except OSError as error:
        if error.errno is None:  # what bz2 raises over bytes that are no bz2
            raise InputError(f"the file is damaged or not compressed as its name says: {error}", path) from error
        raise InputError(
            f"cannot unpack {path.name}: {error.strerror}; "
            "free some space, or set POTSTILL_CACHE to a folder that can be written",
            target.parent,
        ) from error
    return target


def _unpack(path: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with (
            path.open("rb") as raw,
            OPENERS[path.suffix](raw, "rb") as packed,
            temporary.open("wb") as file,
            delayed_progress(f"unpack {path.name}", path.stat().st_size) as advance,
        ):
            done = 0
            while block := packed.read(_BLOCK):
                file.write(block)
                advance(raw.tell() - done)  # in compressed bytes
                done = raw.tell()
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


TEMPORARY_PREFIX = ".unfinished-"


@contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``target``, and move it there if the block ends without an error.

    Where another process finished the same target first, its folder stays and ours is dropped, so the content
    must depend on the name alone.

    Args:
        target: the folder to make; its parents are made as needed.

    Yields:
        The temporary folder, empty. It is removed if the block raises.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{target.name}-", dir=target.parent))
    try:
        yield temporary
        _open_to_readers(temporary)
        with suppress(FileExistsError):
            _move(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(target: str | Path) -> None:
    """Remove what killed processes left of ``target``; call it only while no other process writes the same target."""
    target = Path(target)
    for leftover in target.parent.glob(f"{TEMPORARY_PREFIX}{target.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Give the folder and its files the usual permissions; some libraries write files for their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _move(temporary: Path, target: Path) -> None:
    """Rename onto ``target``, which may be an empty folder; any other folder raises FileExistsError."""
    try:
        temporary.replace(target)
    except OSError as error:
        if target.is_dir():
            raise FileExistsError(target) from error
        raise


def cache_folder() -> Path:
    """The cache folder: POTSTILL_CACHE, by default ``~/.cache/potstill``; it need not exist yet."""
    return Path(os.environ.get("POTSTILL_CACHE") or "~/.cache/potstill").expanduser()
