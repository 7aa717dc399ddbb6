"""Sections of the docs that commands write."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foundations.files import write_whole

README = Path(__file__).parent.parent / "README.md"
END = "<!-- end -->"


def versions(*packages: str) -> str:
    """The versions of packages, for the line below a table."""
    return ", ".join(f"{package} {_version(package)}" for package in packages)


def machine() -> str:
    """What the figures were measured on: the GPU, or the processor's kind and the number of threads; and Python's."""
    import torch

    gpu = torch.cuda.is_available()
    threads = f"{platform.machine()}, {os.environ.get('OMP_NUM_THREADS', 'all')} thread(s)"
    return f"{f'One {torch.cuda.get_device_name()}' if gpu else threads}, Python {platform.python_version()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def replace_section(path: Path, command: str, text: str) -> None:
    """Put text between the marks of a page, ``<!-- begin: written by COMMAND -->`` and ``<!-- end -->``.

    Args:
        path: the page.
        command: what writes the section.
        text: what stands there afterwards.

    Raises:
        ValueError: the page has no such marks.
    """
    page = path.read_text(encoding="utf-8")
    begin = f"<!-- begin: written by {command} -->"
    head, found, rest = page.partition(begin)
    _, ended, tail = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{path} has no section between {begin!r} and {END!r}")
    with write_whole(path) as file:
        file.write(f"{head}{begin}\n{text}\n{END}{tail}")
