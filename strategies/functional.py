"""What the strategies have in common: precision, costs, masses and alignments of tokens, and scores of texts."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foundations.checks import check_choice
from strategies.base import Embeddings, ListEmbeddings

Score = Literal["pooled", "maxsim"]
Marginals = Literal["uniform", "norm", "idf"]

SHORTEST = 1e-6
"""A vector shorter than this is as good as zero: it is divided by this, or its gradient would be huge."""

MEMORY_MB = 256
"""Largest block of token similarities, in MiB; the result does not depend on it."""


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is so already; half precision is too coarse for these losses."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which autocast is off on the tensor's device, so that float32 stays float32."""
    return torch.autocast(device_type=x.device.type, enabled=False)


def check_widths(student: Embeddings, teacher: Embeddings) -> None:
    """Refuse, with a ValueError, a student whose pooled vectors are not in the teacher's width."""
    width, expected = student.pooled.shape[-1], teacher.pooled.shape[-1]
    if width != expected:
        raise ValueError(
            f"the student's vectors have {width} dimensions, expected the teacher's {expected}: "
            f"project the student to {expected}"
        )


def unit_tokens(embeddings: Embeddings) -> Tensor:
    """Token vectors (..., T, D) scaled to unit length, zero at padding, at least in float32."""
    tokens, mask = embeddings.require_tokens()
    return F.normalize(at_least_float32(tokens).masked_fill(~mask[..., None], 0.0), dim=-1, eps=SHORTEST)


def token_cost(teacher: Embeddings, student: Embeddings) -> Tensor:
    """1 - cosine between each teacher token and each student token, 0 to 2; (B, S, T), in float32 at least.

    That is half the squared distance of the tokens as unit vectors. It is 1 at padding, whose values, NaN too, reach
    neither the cost nor the gradient.
    """
    check_widths(student, teacher)
    return 1 - unit_tokens(teacher) @ unit_tokens(student).mT


def pooled_cost(teacher: Embeddings, student: Embeddings, weights: Tensor | None = None) -> Tensor:
    """Squared distance of the pooled vectors, summed over dimensions, averaged over the batch; a scalar, 0 to 4.

    It is 2 (1 - cosine), so it does not shrink with the width, and can be added to a token cost without a factor of D.
    Each pair's distance is multiplied by its weight (B,).
    """
    check_widths(student, teacher)
    distances = (at_least_float32(student.pooled) - at_least_float32(teacher.pooled)).square().sum(1)
    return (distances if weights is None else weights * distances).mean()


def token_marginals(embeddings: Embeddings, kind: Marginals) -> Tensor:
    """The mass of each token of a text (B, T), without gradient: its `token_weights`.

    Example:
        >>> import torch
        >>> tokens, mask = torch.tensor([[[3.0, 4.0], [0.0, 5.0], [7.0, 7.0]]]), torch.tensor([[True, True, False]])
        >>> token_marginals(Embeddings(torch.ones(1, 2), tokens, mask), "norm")
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    check_choice("marginals", kind, get_args(Marginals))
    with torch.no_grad():
        return token_weights(embeddings, kind)


def token_weights(embeddings: Embeddings, kind: Marginals) -> Tensor:
    """How much each token of a text counts (B, T), in float32 at least: exact zeros at padding, rows sum to one.

    ``uniform``: all tokens alike, as also in a text whose masses are all zero. ``norm``: in proportion to the norm of
    the token vector before normalisation, which is small for words that say little (Yokoi et al. 2020, arXiv
    2004.15003). ``idf``: in proportion to the inverse document frequency in ``embeddings.weights``; ValueError where
    there is none.
    """
    tokens, mask = embeddings.require_tokens()
    if kind == "idf":
        if embeddings.weights is None:
            raise ValueError(
                'marginals "idf" need a weight for each token, but the encoder gave none: encode with weights '
                "(a strategy declares this with needs_weights = True)"
            )
        mass = at_least_float32(embeddings.weights)
    elif kind == "norm":
        mass = at_least_float32(tokens).masked_fill(~mask[..., None], 0.0).norm(dim=-1)
    else:
        mass = torch.ones_like(mask, dtype=at_least_float32(tokens[:0]).dtype)
    mass = torch.where(mask, mass, 0.0)
    mass = torch.where(mass.sum(1, keepdim=True) > 0, mass, mask.to(mass))
    return mass / mass.sum(1, keepdim=True)


def greedy_alignment(cost: Tensor, source_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Align tokens one to one: again and again the pair with the smallest cost, whose row and column then leave.

    Takes in one round all pairs that are the smallest of both their row and their column: the sequential search
    would take them too. Equal costs go to the lower index. The result (B, S, T) is 1 at aligned pairs, as many as the
    shorter side has real tokens, and 0 elsewhere.

    Source: DR.DECR (Li et al. 2021, arXiv 2112.08185), section on cross-lingual token alignment.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[[0.1, 0.2], [0.3, 0.9], [0.5, 0.5]]])
        >>> greedy_alignment(cost, torch.ones(1, 3).bool(), torch.ones(1, 2).bool())
        tensor([[[1., 0.],
                 [0., 0.],
                 [0., 1.]]])
    """
    with torch.no_grad():
        free = source_mask[:, :, None] & target_mask[:, None, :]
        left = torch.where(free, cost, math.inf)
        plan = torch.zeros_like(cost)
        rows = torch.arange(cost.shape[1], device=cost.device)
        for _ in range(min(cost.shape[1:])):
            value, column = left.min(2)
            back = left.argmin(1).gather(1, column)  # the row that each row's choice would choose
            chosen = (back == rows) & value.isfinite()
            if not bool(chosen.any()):
                break
            plan.scatter_add_(2, column[:, :, None], chosen.to(plan)[:, :, None])
            left += torch.where(chosen, math.inf, 0.0)[:, :, None]
            left += torch.where(plan.sum(1) > 0, math.inf, 0.0)[:, None, :]
    return plan


def all_scores(queries: Embeddings, passages: Embeddings, score: Score, weights: Tensor | None = None) -> Tensor:
    """The score of each of B queries with each of M passages, -1 to 1; (B, M), in float32 at least.

    ``pooled``: the cosine of the pooled vectors. ``maxsim``: late interaction, the mean over the query's tokens of the
    largest cosine with a token of the passage; see `maxsim`, which has the weights (B, S).

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
    return maxsim(unit_tokens(queries), masks[0], unit_tokens(passages), masks[1], weights=weights)


def maxsim(
    queries: Tensor,
    query_mask: Tensor,
    documents: Tensor,
    document_mask: Tensor,
    memory_mb: float = MEMORY_MB,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean, over the tokens of a query, of the largest cosine with a token of the document.

    This is ColBERT's score (Khattab & Zaharia 2020, arXiv 2004.12832, eq. 3) divided by the number of query tokens, so
    it is from -1 to 1 for queries of any length. With weights (B, S), which sum to one in each query (`token_weights`),
    it is the weighted mean. Where the similarities of all tokens exceed the memory, they are
    computed in blocks of documents, and once more in the backward pass.

    Queries (B, S, D) and documents (N, T, D) are unit vectors, zero at padding, each with at least one token that is
    True in its mask; the result is (B, N).
    """
    tokens = queries[query_mask]
    document_bytes = len(tokens) * documents.shape[1] * documents.element_size()
    size = max(1, int(memory_mb * 2**20) // document_bytes)
    blocks = list(zip(torch.split(documents, size), torch.split(document_mask, size), strict=True))
    if len(blocks) == 1:
        best = _best(tokens, *blocks[0])
    else:
        parts = [
            checkpoint(_best, tokens, *block, use_reentrant=False, preserve_rng_state=False)  # computed again backwards
            for block in blocks
        ]
        best = torch.cat(parts, dim=1)
    if weights is not None:
        best = best * weights[query_mask][:, None].to(best)
    sums = best.new_zeros(len(queries), len(documents)).index_add(0, query_mask.nonzero()[:, 0], best)
    return sums / query_mask.sum(1, keepdim=True) if weights is None else sums


def _best(tokens: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
    """The largest product of each of R query tokens with a token of each document; (R, N)."""
    products = F.linear(tokens, documents.flatten(0, 1)).view(-1, *mask.shape)
    return products.masked_fill(~mask, -torch.inf).amax(2)


def list_scores(queries: Embeddings, passages: Embeddings, score: Score) -> Tensor:
    """The score of each query with each passage of its own list (B, N), as in `all_scores`.

    Passages are pooled (B, N, D), tokens (B, N, T, D). The score is anything finite where no passage is listed.
    """
    if score == "pooled":
        return (at_least_float32(queries.pooled)[:, None] * at_least_float32(passages.pooled)).sum(2)
    query_mask, passage_mask = queries.require_tokens()[1], passages.require_tokens()[1]
    cosines = torch.einsum("bsd,bntd->bnst", unit_tokens(queries), unit_tokens(passages))
    # Not -inf: what is not listed may have no token, and its gradient would be NaN.
    best = cosines.masked_fill(~passage_mask[:, :, None, :], -2.0).amax(3)
    return (best * query_mask[:, None, :]).sum(2) / query_mask.sum(1, keepdim=True)


def teacher_list_scores(teacher: ListEmbeddings, score: Score, computed_scale: float, given_scale: float) -> Tensor:
    """The teacher's scores of the listed passages (B, N), without gradient; anything finite where none is listed.

    Scores of a file, times ``given_scale``, count for a query if all passages of its list have one; else the scores are
    computed from the teacher's vectors, times ``computed_scale``.
    """
    candidates, listed = teacher.require_candidates()
    with torch.no_grad():
        computed = list_scores(teacher, candidates, score) * computed_scale
        if teacher.scores is None:
            return computed
        given = at_least_float32(teacher.scores)
        complete = (given.isfinite() | ~listed).all(1, keepdim=True)
        return torch.where(complete, given.nan_to_num() * given_scale, computed)


def masked(logits: Tensor, excluded: Tensor | None) -> Tensor:
    """Logits with -inf where excluded."""
    return logits if excluded is None else logits.masked_fill(excluded, -math.inf)


def masked_log_softmax(scores: Tensor, counted: Tensor) -> Tensor:
    """Logarithm of the softmax over the entries (B, M) that count; 0 at the others. A row may have none."""
    has_any = counted.any(1, keepdim=True)
    logits = scores.masked_fill(~counted & has_any, -math.inf)
    return logits.log_softmax(1).masked_fill(~counted, 0.0)
