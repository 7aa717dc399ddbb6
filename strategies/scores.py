"""How well queries and passages match: by pooled vectors, or by tokens (MaxSim)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from strategies.base import Embeddings, ListEmbeddings
from strategies.cost import unit_tokens
from strategies.late_interaction import maxsim
from strategies.options import at_least_float32

Score = Literal["pooled", "maxsim"]


def all_scores(queries: Embeddings, passages: Embeddings, score: Score) -> Tensor:
    """The score of each query with each passage, -1 to 1.

    ``pooled``: the cosine of the pooled vectors. ``maxsim``: late interaction, the mean over the query's tokens of the
    largest cosine with a token of the passage; see `strategies.late_interaction.maxsim`.

    Args:
        queries: pooled (B, D), tokens (B, S, D).
        passages: pooled (M, D), tokens (M, T, D).
        score: ``pooled`` or ``maxsim``.

    Returns:
        (B, M), in float32 (float64 if a side is so already).

    Raises:
        ValueError: ``maxsim`` without tokens.

    Example:
        >>> import torch
        >>> tokens, mask = torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool)
        >>> query = Embeddings(torch.tensor([[1.0, 0.0]]), tokens, mask)
        >>> passage = Embeddings(torch.tensor([[0.6, 0.8]]), tokens[:, :1], mask[:, :1])
        >>> all_scores(query, passage, "maxsim"), all_scores(query, passage, "pooled")
        (tensor([[0.5000]]), tensor([[0.6000]]))
    """
    if score == "pooled":
        return at_least_float32(queries.pooled) @ at_least_float32(passages.pooled).mT
    masks = queries.require_tokens()[1], passages.require_tokens()[1]
    return maxsim(unit_tokens(queries), masks[0], unit_tokens(passages), masks[1])


def list_scores(queries: Embeddings, passages: Embeddings, score: Score) -> Tensor:
    """The score of each query with each passage of its own list; see `all_scores`.

    Args:
        queries: pooled (B, D), tokens (B, S, D).
        passages: pooled (B, N, D), tokens (B, N, T, D).
        score: ``pooled`` or ``maxsim``.

    Returns:
        (B, N), in float32 (float64 if a side is so already); anything finite where no passage is listed.
    """
    if score == "pooled":
        return (at_least_float32(queries.pooled)[:, None] * at_least_float32(passages.pooled)).sum(2)
    query_mask, passage_mask = queries.require_tokens()[1], passages.require_tokens()[1]
    cosines = torch.einsum("bsd,bntd->bnst", unit_tokens(queries), unit_tokens(passages))
    # Not -inf: what is not listed may have no token, and its gradient would be NaN.
    best = cosines.masked_fill(~passage_mask[:, :, None, :], -2.0).amax(3)
    return (best * query_mask[:, None, :]).sum(2) / query_mask.sum(1, keepdim=True)


def teacher_list_scores(teacher: ListEmbeddings, score: Score, computed_scale: float, given_scale: float) -> Tensor:
    """What the teacher says of the listed passages: the scores of a file, else its own.

    Args:
        teacher: source side.
        score: how the teacher's own scores are computed.
        computed_scale: multiplies those.
        given_scale: multiplies the scores of a file. They count for a query if all passages of its list have one.

    Returns:
        (B, N), without gradient; anything finite where no passage is listed.
    """
    candidates, listed = teacher.require_candidates()
    with torch.no_grad():
        computed = list_scores(teacher, candidates, score) * computed_scale
        if teacher.scores is None:
            return computed
        given = at_least_float32(teacher.scores)
        complete = (given.isfinite() | ~listed).all(1, keepdim=True)
        return torch.where(complete, given.nan_to_num() * given_scale, computed)


def masked_log_softmax(scores: Tensor, counted: Tensor) -> Tensor:
    """Logarithm of the softmax over the entries that count; 0 at the others.

    Args:
        scores: (B, M).
        counted: True at entries that count; (B, M). A row may have none.

    Returns:
        (B, M).
    """
    some = counted.any(1, keepdim=True)
    logits = scores.masked_fill(~counted & some, -math.inf)
    return logits.log_softmax(1).masked_fill(~counted, 0.0)
