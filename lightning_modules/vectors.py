"""Sums over token states: means, projections, and how rare a token is."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.base import Embeddings


def inverse_document_frequency(counts: Tensor, total: int) -> Tensor:
    """Smoothed IDF, log((1 + N) / (1 + n)) + 1, at least 1.

    Args:
        counts: number n of texts that each token is in; (V,).
        total: number N of texts.

    Returns:
        (V,), float32.
    """
    return (torch.log((1 + total) / (1 + counts.double())) + 1).float()


def projected(embeddings: Embeddings, layer: nn.Module) -> Embeddings:
    """Pooled vectors and token states after a linear layer, the pooled ones scaled to unit length again."""
    if isinstance(layer, nn.Identity):
        return embeddings
    states = None if embeddings.tokens is None else layer(embeddings.tokens)
    return replace(embeddings, pooled=F.normalize(layer(embeddings.pooled).float(), dim=-1), tokens=states)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the states where the mask is True, in float32.

    Args:
        states: (B, T, D).
        mask: weights, bool or >= 0; (B, T).

    Returns:
        (B, D); zero where the mask has no True.
    """
    weights = mask.to(torch.float32)[..., None]
    return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
