"""Checks of constructor options, and the precision in which losses are computed."""

from __future__ import annotations

import math
from collections.abc import Collection
from difflib import get_close_matches

import torch
from torch import Tensor


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse a value that is not among the choices, and name the nearest one.

    Args:
        name: the option, as the user writes it.
        value: what the user gave.
        choices: what is allowed.

    Raises:
        ValueError: the value is not among the choices.
    """
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(sorted(choices))}, not {value!r}{hint}")


def check_number(name: str, value: float, *, minimum: float = 0.0, inclusive: bool = False) -> None:
    """Refuse a number that is not finite, or not above a minimum.

    Args:
        name: the option, as the user writes it.
        value: what the user gave.
        minimum: the bound below.
        inclusive: whether the bound itself is allowed.

    Raises:
        ValueError: the number is out of range.
    """
    if not math.isfinite(value) or value < minimum or (value == minimum and not inclusive):
        raise ValueError(f"{name} must be {'at least' if inclusive else 'greater than'} {minimum:g}, not {value!r}")


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is so already; half precision is too coarse for these losses."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which autocast is off on the tensor's device, so that float32 stays float32."""
    return torch.autocast(device_type=x.device.type, enabled=False)
