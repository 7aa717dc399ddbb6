"""Write a folder all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
