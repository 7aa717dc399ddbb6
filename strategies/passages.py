"""The listed passages of all ranks, as further texts to choose among."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.base import Embeddings, ListEmbeddings
from strategies.distributed import gather, gather_embeddings, pad_over_ranks, rank_and_world_size


@dataclass(frozen=True)
class Passages:
    """The M = ranks * B * N listed passages of all ranks, and what is known of them to this rank's B pairs.

    Args:
        texts: pooled (M, D), tokens (M, T, D) and mask where they were asked for.
        own: place of the first passage of each pair's list among the M; (B,).
        has_list: whether that list has any passage; (B,).
        is_source: True where the passage is not listed, or is the pair's own source; (B, M).
        is_first: True where the passage is the first of the pair's list, wherever it is listed; (B, M).
        source_is_first: True where the source of a pair of any rank is the first of the pair's list; (B, ranks * B).
    """

    texts: Embeddings
    own: Tensor
    has_list: Tensor
    is_source: Tensor
    is_first: Tensor
    source_is_first: Tensor


def gather_passages(side: ListEmbeddings, tokens: bool) -> Passages:
    """The listed passages of all ranks, with gradient.

    Args:
        side: what queries are scored against, the same B on all ranks; lists may be longer on some.
        tokens: whether token states are needed.

    Raises:
        ValueError: candidates without ids, or pairs without keys, which say which texts are the same.
    """
    candidates, listed = side.require_candidates()
    if candidates.ids is None or side.keys is None:
        raise ValueError("to be negatives of other pairs, candidates need ids, and pairs need keys among those ids")
    ids, listed = pad_over_ranks(candidates.ids, 1), pad_over_ranks(listed, 1)
    flat = Embeddings(pad_over_ranks(candidates.pooled, 1).flatten(0, 1))
    if tokens:
        states, mask = (pad_over_ranks(part, 1).flatten(0, 1) for part in candidates.require_tokens())
        mask = mask | ((torch.arange(mask.shape[1], device=mask.device) == 0) & ~listed.flatten()[:, None])
        flat = Embeddings(flat.pooled, states, mask)
    all_ids, all_listed, all_keys = gather(ids.flatten(), listed.flatten().to(torch.uint8), side.keys)
    rows, width = ids.shape
    has_list, first = listed[:, :1], ids[:, :1]
    return Passages(
        texts=gather_embeddings(flat, tokens),
        own=(rank_and_world_size()[0] * rows + torch.arange(rows, device=ids.device)) * width,
        has_list=has_list[:, 0],
        is_source=(all_ids == side.keys[:, None]) | ~all_listed.bool(),
        is_first=(all_ids == first) & has_list,
        source_is_first=(all_keys == first) & has_list,
    )


def negatives(logits: Tensor, scores: Tensor, passages: Passages, ranked: bool) -> Tensor:
    """The logits of the sources, and after them those of the passages that are negatives, -inf elsewhere.

    Args:
        logits: of the sources; (B, ranks * B).
        scores: of the passages, scaled; (B, M).
        passages: the passages.
        ranked: whether the first passage of a list is relevant, and so no negative of its pair.

    Returns:
        (B, ranks * B + M).
    """
    excluded = passages.is_source | passages.is_first if ranked else passages.is_source
    return torch.cat([logits, scores.masked_fill(excluded, -math.inf)], 1)


def relevant_loss(logits: Tensor, scores: Tensor, passages: Passages, labels: Tensor) -> Tensor:
    """InfoNCE of the first passage of each list; pairs without a list add zero.

    Args:
        logits: of sources and negatives, as `negatives` gives them; (B, ranks * B + M).
        scores: of the passages, scaled; (B, M).
        passages: the passages.
        labels: place of the own source; (B,).

    Returns:
        Scalar, mean over B.
    """
    others = logits.scatter(1, labels[:, None], -math.inf)
    choices = torch.cat([scores.gather(1, passages.own[:, None]), others], 1)
    return -(choices.log_softmax(1)[:, 0] * passages.has_list).mean()
