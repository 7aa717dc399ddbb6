"""Potstill: distil a strong retriever into a student for a low-resource language.

    from potstill import compare, distil, evaluate, load_student

What these need (torch, transformers, Lightning) is imported when the first of them is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.api import Student, compare, distil, evaluate, load_student

__version__ = "0.1.0"
__all__ = ["Student", "compare", "distil", "evaluate", "load_student"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("potstill.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
