"""Embedding tables with one row for each piece of a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def start_rows(table: Tensor, sources: list[list[int]]) -> Tensor:
    """The rows of a new table: each the mean of its old rows.

    Args:
        table: the old table, (V, D).
        sources: old ids of each of the W new rows.

    Returns:
        (W, D).
    """
    rows = table[torch.tensor([ids[0] for ids in sources], device=table.device)]
    for row, ids in enumerate(sources):
        if len(ids) > 1:
            rows[row] = table[ids].mean(0)
    return rows


def set_rows(table: nn.Embedding, rows: Tensor) -> None:
    """Put other rows into an embedding table, as a new parameter; do it before the optimiser is made."""
    table.weight = nn.Parameter(rows, requires_grad=table.weight.requires_grad)
    table.num_embeddings = len(rows)
