"""Random teachers and students without any encoder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from strategies.base import Embeddings

MakeSide = Callable[..., Embeddings]


@pytest.fixture
def make_side() -> MakeSide:
    """One side of B pairs: random states, lengths from 1 to T (the first text is T long, the second 1)."""

    def make(batch: int = 6, length: int = 7, width: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, length + 1, (batch,), generator=generator)
        lengths[0], lengths[1:2] = length, 1
        return Embeddings(
            pooled=F.normalize(torch.randn(batch, width, generator=generator), dim=-1).to(dtype),
            tokens=torch.randn(batch, length, width, generator=generator).to(dtype),
            mask=torch.arange(length) < lengths[:, None],
            weights=torch.rand(batch, length, generator=generator) + 0.1,
        )

    return make
