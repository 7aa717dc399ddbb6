"""How the native loops are compiled."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

# Sums may be reordered, so that they vectorise; infinities and NaN keep their meaning.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function as a part of those that call it."""
    wrapper: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return wrapper


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function into those that call it: a call with many arrays takes longer than a short loop."""
    wrapper: Callable[..., Any] = numba.njit(forceinline=True, **OPTIONS)(function)
    return wrapper


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, and keep the machine code on disk if there is a place for it."""
    try:
        wrapper: Callable[..., Any] = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither the folder of the function's file nor the user's cache can be written
        return compiled(function)
    return wrapper


def source_stamp() -> int:
    """A number that changes with the source of the native loops.

    Numba compiles again when the file of a function changes, but not when that of a function that it calls does.
    """
    files = sorted(Path(__file__).parent.glob("cpu_*.py"))
    return zlib.crc32(b"".join(file.read_bytes() for file in [*files, Path(__file__)]))
