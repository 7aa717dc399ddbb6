"""Vectors on a grid, on which sums of products are exact in double precision, in any order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

POOLED_GRID = 2.0**26
TOKEN_GRID = 2.0**22  # coarser, so that sums over up to 512 query tokens are exact as well
_ROWS_PER_CHECK = 8192
_ROWS_IN_CACHE = 256
_SMALLEST = torch.finfo(torch.float64).tiny


def on_grid(vectors: Tensor, grid: float, normalise: bool = True) -> tuple[Tensor, Tensor]:
    """Vectors scaled to at most unit length, in double precision, rounded to multiples of 1 / grid.

    Args:
        vectors: (n, D).
        grid: a power of two.
        normalise: divide by the norm; otherwise by the next power of two, so that the scale can be undone exactly.

    Returns:
        The vectors (n, D), and what they were divided by (n, 1).
    """
    if vectors.device.type == "cpu" and len(vectors) > _ROWS_IN_CACHE:
        result, scales = torch.empty(vectors.shape, dtype=torch.float64), torch.empty(len(vectors), 1).double()
        for rows in spans(len(vectors), _ROWS_IN_CACHE):
            result[rows], scales[rows] = on_grid(vectors[rows], grid, normalise)
        return result, scales
    vectors = vectors.double()
    scale: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    scale = (
        scale.clamp_min(_SMALLEST) if normalise else torch.ldexp(torch.ones_like(scale), torch.frexp(scale).exponent)
    )
    return (vectors / scale).mul_(grid).round_().mul_(1 / grid), scale


def spans(total: int, size: int) -> Iterator[slice]:
    """Slices of at most so many rows, one after the other."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def check_finite(vectors: Tensor, name: str, first: int = 0) -> None:
    """Raise ValueError where a vector is not finite.

    Args:
        vectors: (n, D).
        name: what they are, for the message.
        first: number of the first one.
    """
    for rows in spans(len(vectors), _ROWS_PER_CHECK):
        wrong = torch.nonzero(~torch.isfinite(vectors[rows]).all(dim=1))
        if len(wrong):
            raise ValueError(f"the vector of {name} {first + rows.start + int(wrong[0])} is not finite")
