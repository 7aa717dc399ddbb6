"""How far apart teacher and student are: by tokens, and by pooled vectors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from strategies.base import Embeddings
from strategies.options import at_least_float32

SHORTEST = 1e-6
"""A vector shorter than this is as good as zero: it is divided by this, or its gradient would be huge."""


def token_cost(teacher: Embeddings, student: Embeddings) -> Tensor:
    """1 - cosine between each teacher token and each student token, 0 to 2.

    That is half the squared distance of the tokens as unit vectors.
    Padding is replaced by zeros first, so that its values, NaN too, reach neither the cost nor the gradient.

    Args:
        teacher: source side, with tokens (B, S, D).
        student: target side, with tokens (B, T, D).

    Returns:
        (B, S, T), in float32 (float64 if a side is so already). 1 at padding.

    Raises:
        ValueError: a side has no tokens, or the widths differ.
    """
    check_widths(student, teacher)
    return 1 - unit_tokens(teacher) @ unit_tokens(student).mT


def pooled_cost(teacher: Embeddings, student: Embeddings, weights: Tensor | None = None) -> Tensor:
    """Squared distance of the pooled vectors, summed over dimensions, averaged over the batch; a scalar, 0 to 4.

    It is 2 (1 - cosine), so it does not shrink with the width, and stands beside a token cost without a factor of D.

    Args:
        teacher: source side, pooled (B, D).
        student: target side, pooled (B, D).
        weights: each pair's distance is multiplied by; (B,). None is 1.

    Raises:
        ValueError: the widths differ.
    """
    check_widths(student, teacher)
    distances = (at_least_float32(student.pooled) - at_least_float32(teacher.pooled)).square().sum(1)
    return (distances if weights is None else weights * distances).mean()


def check_widths(student: Embeddings, teacher: Embeddings) -> None:
    """Refuse a student that is not in the teacher's width.

    Raises:
        ValueError: the last dimensions of the pooled vectors differ.
    """
    ours, theirs = student.pooled.shape[-1], teacher.pooled.shape[-1]
    if ours != theirs:
        raise ValueError(
            f"the student's vectors have {ours} dimensions and the teacher's {theirs}: project the student to {theirs}"
        )


def unit_tokens(embeddings: Embeddings) -> Tensor:
    """Token vectors scaled to unit length, zero at padding, at least in float32.

    Args:
        embeddings: with tokens (..., T, D).

    Returns:
        (..., T, D).

    Raises:
        ValueError: there are no tokens.
    """
    tokens, mask = embeddings.require_tokens()
    return F.normalize(at_least_float32(tokens).masked_fill(~mask[..., None], 0.0), dim=-1, eps=SHORTEST)
