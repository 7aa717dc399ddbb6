"""Compressed files, unpacked once into the cache folder so that any line of them can be read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

from filelock import FileLock

from datamodules.fetch import cache_folder
from retrieval.errors import InputError
from retrieval.files import require_file
from retrieval.progress import delayed_progress

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
