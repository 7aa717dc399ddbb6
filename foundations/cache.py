"""The cache folder, and what is made there once: under a lock, by the first process that needs it."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from foundations.errors import InputError
from foundations.files import PACKED_SUFFIXES, is_packed, open_content, remove_unfinished, require_file, unfinished
from foundations.progress import delayed_progress

Array = np.ndarray[Any, Any]

IntArray = np.ndarray[Any, np.dtype[np.int64]]

_SPACE = "free some space, or set POTSTILL_CACHE to a folder that can be written"

_PATIENCE = 0.5
"""Seconds to wait for another process before a message says so."""

_BLOCK = 1 << 20


def cache_folder() -> Path:
    """The cache folder: POTSTILL_CACHE, by default ``~/.cache/potstill``; it need not exist yet."""
    return Path(os.environ.get("POTSTILL_CACHE") or "~/.cache/potstill").expanduser()


@contextmanager
def locked(path: str | Path, doing: str, hint: str = _SPACE) -> Iterator[None]:
    """Keep other processes out of a block; those that wait say so on stderr. The same process may nest such blocks.

    Args:
        path: of the lock file; its folder is made as needed. The file stays.
        doing: what the block does, after "another process that", e.g. ``encodes with starter/e5-small``.
        hint: what a user can do where the lock cannot be written.

    Raises:
        InputError: the lock file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True)
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            print(f"waiting for another process that {doing}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise InputError(f"the folder cannot be written: {error.strerror or error}; {hint}", path.parent) from error
    try:
        yield
    finally:
        lock.release()


def made_once(target: str | Path, make: Callable[[Path], object], what: str) -> Path:
    """A file or folder in the cache: the one that is there, or made and put there.

    Of several processes that need the same target, one makes it and the others wait. It appears when it is complete;
    what a killed process left is removed by the next one.

    Args:
        target: the file or folder.
        make: makes it at the path that it is given, where nothing is yet; see `unfinished`. A folder must be made by it
            as well. It may raise InputError.
        what: names the target in messages, e.g. ``the index of pairs.tsv``.

    Returns:
        The target.

    Raises:
        InputError: the cache folder cannot be written, or the disk is full.
    """
    target = Path(target)
    if target.exists():
        return target
    with locked(target.with_name(f".{target.name}.lock"), f"makes {what}"):
        if not target.exists():
            try:
                remove_unfinished(target)
                with unfinished(target) as temporary:
                    make(temporary)
            except OSError as error:
                reason = error.strerror or error
                raise InputError(f"cannot make {what}: {reason}; {_SPACE}", target.parent) from error
    return target


def file_key(path: str | Path, *more: str) -> str:
    """A name for what is made from a file: 24 hex digits.

    They depend on the file's absolute path, size and time of change, and on all other arguments.

    Args:
        path: the file.
        more: names what is made from it and how, e.g. ``lines 1024 pairs``.
    """
    path = Path(path).resolve()
    parts = "\0".join([str(path), _state(path), *more])
    return hashlib.blake2b(parts.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def content_hash(path: str | Path) -> str:
    """BLAKE2b of a file's content, 32 hex digits; read once while its size and time of change stay."""
    path = Path(path)
    return _content_hash(path, _state(path))


@lru_cache(maxsize=256)
def _content_hash(path: Path, _: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def derived_array(path: str | Path, form: str, make: Callable[[], IntArray]) -> IntArray:
    """An array that depends on a file's content alone: read from the cache, or made and put there.

    Args:
        path: the file.
        form: names what is computed and how, including the format that was checked, e.g. ``lines 1024 pairs``.
        make: computes the array; it may raise InputError.

    Returns:
        The array, mapped from disk, read-only.

    Raises:
        InputError: no file, it changed while it was read, or as `made_once`.
    """
    path = require_file(path).resolve()
    key = file_key(path, form)

    def write(target: Path) -> None:
        array = make()
        if file_key(path, form) != key:
            raise InputError("the file changed while it was read: run it again when it is complete", path)
        write_array(target, array)

    target, what = cache_folder() / "index" / f"{key}.npy", f"the index of {path.name}"
    made_once(target, write, what)
    try:
        return np.asarray(np.load(target, mmap_mode="r"))
    except (EOFError, ValueError) as error:
        warnings.warn(f"{target}: damaged, made again: {error}", stacklevel=2)
        target.unlink(missing_ok=True)
    return np.asarray(np.load(made_once(target, write, what), mmap_mode="r"))


def write_array(path: Path, array: Array) -> None:
    """Write a NumPy file, and wait until it is on disk; whatever its name ends in."""
    with path.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def unpacked(path: str | Path) -> Path:
    """The file itself, or its unpacked copy in the cache folder where its content is compressed (gzip, bz2, xz).

    The copy is made anew when the file has changed.

    Raises:
        InputError: no file, one that is damaged, or as `made_once`.
    """
    path = require_file(path)
    if path.suffix not in PACKED_SUFFIXES and not is_packed(path):
        return path
    name = path.stem if path.suffix in PACKED_SUFFIXES else path.name
    target = cache_folder() / "unpacked" / file_key(path) / name
    return made_once(target, lambda temporary: _unpack(path, temporary), f"the unpacked copy of {path.name}")


def _unpack(path: Path, target: Path) -> None:
    size = path.stat().st_size
    with (
        open_content(path) as (content, raw),
        target.open("wb") as file,
        delayed_progress(f"unpack {path.name}", size) as advance,
    ):
        done = 0
        while block := content.read(_BLOCK):
            file.write(block)
            advance(raw.tell() - done)  # in compressed bytes
            done = raw.tell()
