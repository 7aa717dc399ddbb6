"""Token vectors of many texts, end to end without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenMatrix:
    """The token vectors of N texts: text i owns the rows offsets[i] to offsets[i + 1].

    Args:
        values: one row a token, real tokens only; (sum of lengths, D), any floating type (float16 halves the memory).
        offsets: where each text begins, and the end; (N + 1,), int64, strictly ascending from 0.
        weights: how much each token counts in MaxSim where the text is a query: from 0, those of a text sum to one;
            (sum of lengths,). None: all count the same, and their cosines are summed.

    Raises:
        ValueError: the shapes do not fit, or a text has no token.

    >>> tokens = TokenMatrix.from_padded(torch.ones(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool())
    >>> len(tokens), tokens.lengths.tolist()
    (2, [2, 3])
    """

    values: Tensor
    offsets: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.offsets.ndim != 1 or len(self.offsets) == 0:
            raise ValueError(
                f"values have shape {tuple(self.values.shape)} and offsets {tuple(self.offsets.shape)}, "
                "expected (tokens, D) and (texts + 1,)"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(f"offsets must run from 0 to the number of tokens, {len(self.values)}")
        if self.weights is not None and self.weights.shape != self.values.shape[:1]:
            raise ValueError(f"there are {tuple(self.weights.shape)} weights for {len(self.values)} tokens")
        empty = torch.nonzero(self.lengths <= 0)
        if len(empty):
            raise ValueError(f"text {int(empty[0])} has no token: each text needs at least one")

    @classmethod
    def from_padded(cls, tokens: Tensor, mask: Tensor, weights: Tensor | None = None) -> TokenMatrix:
        """Drop the padding of a batch: tokens (N, T, D), with a mask (N, T) that is True at the real ones.

        Weights, where there are any, are (N, T).
        """
        if tokens.ndim != 3 or mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)} and mask {tuple(mask.shape)}, expected (N, T, D) and (N, T)"
            )
        mask = mask.bool()
        return cls(tokens[mask], _offsets(mask.sum(dim=1)), None if weights is None else weights[mask])

    @classmethod
    def concatenate(cls, parts: Sequence[TokenMatrix]) -> TokenMatrix:
        """The texts of several parts, one after the other; all of them have weights, or none."""
        if not parts:
            raise ValueError("there is nothing to concatenate: expected at least one TokenMatrix")
        weights = [part.weights for part in parts if part.weights is not None]
        offsets = _offsets(torch.cat([part.lengths for part in parts]))
        return cls(torch.cat([part.values for part in parts]), offsets, torch.cat(weights) if weights else None)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each text; (N,), int64."""
        return self.offsets.diff()

    def select(self, texts: Tensor) -> TokenMatrix:
        """Some of the texts, by their indices, (M,), int64, in the order given."""
        lengths = self.lengths[texts]
        offsets = _offsets(lengths)
        shift = torch.repeat_interleave(self.offsets[texts] - offsets[:-1], lengths)
        rows = torch.arange(len(shift), device=shift.device) + shift
        return TokenMatrix(self.values[rows], offsets, None if self.weights is None else self.weights[rows])


def _offsets(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.to(torch.int64).cumsum(0), (1, 0))
