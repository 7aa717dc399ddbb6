"""The texts of one side of a collection as vectors, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.evaluation.large import own_share
from lightning_modules.students.base import TextSide
from lightning_modules.teachers.online import Teacher
from lightning_modules.vectors import unit_token_matrix
from retrieval.index.tokens import TokenMatrix
from strategies.base import Embeddings

_CHUNK = 256


@dataclass(frozen=True)
class EncodedTexts:
    """The texts of one side of a collection, encoded.

    Args:
        ids: N ids.
        pooled: (N, D).
        tokens: the tokens of the N texts, or None where only pooled vectors are compared.
    """

    ids: list[str]
    pooled: Tensor
    tokens: TokenMatrix | None

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedTexts]) -> EncodedTexts:
        """Parts as one, each id once, in the order of the ids."""
        ids = [name for part in parts for name in part.ids]
        first: dict[str, int] = {}
        for row, name in enumerate(ids):
            first.setdefault(name, row)
        rows = torch.tensor([first[name] for name in sorted(first)])
        tokens = [part.tokens for part in parts if part.tokens is not None]
        merged = TokenMatrix.concatenate(tokens).select(rows) if tokens else None
        return cls(sorted(first), torch.cat([part.pooled for part in parts])[rows], merged)

    def own_share(self) -> EncodedTexts:
        """The texts of this rank: r, r + W, ..."""
        return self.select(own_share(range(len(self.ids))))

    def select(self, rows: Sequence[int]) -> EncodedTexts:
        """Some of the texts, in the order given."""
        chosen = torch.tensor(rows, dtype=torch.int64)
        tokens = None if self.tokens is None else self.tokens.select(chosen)
        return EncodedTexts([self.ids[row] for row in rows], self.pooled[chosen], tokens)

    @classmethod
    def from_embeddings(cls, ids: Sequence[str], embeddings: Embeddings) -> EncodedTexts:
        """The vectors of a batch, moved to the CPU; tokens are kept in half precision."""
        tokens = None if embeddings.tokens is None else unit_token_matrix(embeddings)
        return cls(list(ids), embeddings.pooled.detach().float().cpu(), tokens)


def encode_with_teacher(
    teacher: Teacher, texts: Mapping[str, str], tokens: bool, side: TextSide = "queries"
) -> EncodedTexts:
    """Encode one side of a collection with the teacher."""
    items = list(texts.items())
    parts = []
    for start in range(0, len(items), _CHUNK):
        ids, chunk = zip(*items[start : start + _CHUNK], strict=True)
        parts.append(EncodedTexts.from_embeddings(ids, teacher.encode(list(chunk), tokens=tokens, side=side)))
    return EncodedTexts.concatenate(parts)
