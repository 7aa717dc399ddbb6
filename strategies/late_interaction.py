"""MaxSim between all queries and all documents of a batch, in bounded memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MEMORY_MB = 256
"""Largest block of token similarities, in MiB; the result does not depend on it."""


def maxsim(
    queries: Tensor, query_mask: Tensor, documents: Tensor, document_mask: Tensor, memory_mb: float = MEMORY_MB
) -> Tensor:
    """The mean, over the tokens of a query, of the largest cosine with a token of the document.

    This is ColBERT's score (Khattab & Zaharia 2020, arXiv 2004.12832, eq. 3) divided by the number of query tokens, so
    it is from -1 to 1 for queries of any length. Where the similarities of all tokens exceed the memory, they are
    computed in blocks of documents, and once more in the backward pass.

    Args:
        queries: unit vectors, zero at padding; (B, S, D).
        query_mask: True at real tokens; (B, S). Each row has at least one.
        documents: unit vectors, zero at padding; (N, T, D).
        document_mask: True at real tokens; (N, T). Each row has at least one.
        memory_mb: largest block, in MiB.

    Returns:
        (B, N).
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
    sums = best.new_zeros(len(queries), len(documents)).index_add(0, query_mask.nonzero()[:, 0], best)
    return sums / query_mask.sum(1, keepdim=True)


def _best(tokens: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
    """The largest product of each of R query tokens with a token of each document; (R, N)."""
    products = F.linear(tokens, documents.flatten(0, 1)).view(-1, *mask.shape)
    return products.masked_fill(~mask, -torch.inf).amax(2)
