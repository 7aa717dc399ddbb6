"""Random teachers and students without any encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from strategies.base import Embeddings, ListEmbeddings

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


@pytest.fixture
def make_lists(make_side: MakeSide) -> MakeSide:
    """One side of B pairs with lists of up to 4 passages: the first is full, the second has one, the third none."""

    def make(
        batch: int = 6,
        length: int = 7,
        width: int = 8,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        longest: int = 4,
    ):
        side, passages = make_side(batch, length, width, seed, dtype), make_side(batch * longest, 5, width, 99, dtype)
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, longest + 1, (batch,), generator=torch.Generator().manual_seed(98))
        lengths[0], lengths[1:2], lengths[2:3] = longest, 1, 0
        shape = (batch, longest)
        # The student's own vectors of the passages differ from the teacher's a little.
        noise = 0.1 * torch.randn(batch * longest, width, generator=generator).to(dtype)
        candidates = Embeddings(
            pooled=F.normalize(passages.pooled + noise, dim=-1).unflatten(0, shape),
            tokens=passages.tokens.unflatten(0, shape),
            mask=passages.mask.unflatten(0, shape),
            ids=torch.arange(100, 100 + batch * longest).view(shape),
        )
        return ListEmbeddings(
            **{field.name: getattr(side, field.name) for field in dataclasses.fields(Embeddings)},
            candidates=candidates,
            listed=torch.arange(longest) < lengths[:, None],
            keys=torch.arange(batch),
        )

    return make
