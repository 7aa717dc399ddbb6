"""The contract between the training loop and a distillation loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

INFO_PREFIX = "info/"


@dataclass(frozen=True)
class Embeddings:
    """One side of B pairs, as an encoder gives it.

    Args:
        pooled: one unit vector a text; (B, D).
        tokens: a vector for each token of a text, or each patch of an image, not normalised;
            (B, T, D), or None where the strategy does not need them.
        mask: True at real tokens; (B, T). Each row has at least one True. Special tokens are not real.
        ids: equal ids are the same source (five captions of one image); (B,), int64, or None where all differ.
        weights: inverse document frequency of each token, > 0 at real tokens; (B, T), or None.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    ids: Tensor | None = None
    weights: Tensor | None = None

    def require_tokens(self) -> tuple[Tensor, Tensor]:
        """The token states and their mask.

        Returns:
            Tokens (B, T, D) and mask (B, T).

        Raises:
            ValueError: the encoder gave only pooled vectors.
        """
        if self.tokens is None or self.mask is None:
            raise ValueError(
                "this strategy needs token states, but the encoder gave only pooled vectors: "
                "encode with tokens=True (a strategy declares this with needs_tokens = True)"
            )
        return self.tokens, self.mask


class DistillationStrategy(nn.Module, ABC):
    """A distillation loss. Row i of the student belongs to row i of the teacher, if the pair is clean.

    A strategy knows tensors only: it never encodes, logs, or touches the trainer. It may own parameters
    (a learnable temperature); the module optimises them.
    """

    needs_tokens: bool = False
    """Whether the encoders must give token states. An instance may set it from its options."""

    needs_weights: bool = False
    """Whether the encoders must give token weights (IDF marginals). An instance may set it from its options."""

    @abstractmethod
    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """Named scalar terms, which the module sums.

        Args:
            student: target side of the pairs, with gradient, already in the teacher's width.
            teacher: source side of the pairs, without gradient.

        Returns:
            Scalar tensors by name. Names that begin with ``info/`` are diagnostics: logged, not summed.
        """
