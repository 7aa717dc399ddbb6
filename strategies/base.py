"""The contract between the training loop and a distillation loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

INFO_PREFIX = "info/"
_NO_CANDIDATES = (
    "this strategy needs candidate passages, but got pairs without any: use data whose pairs list candidates "
    "(a strategy declares this with needs_candidates = True)"
)


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
        noisy: True at pairs that are known to be put together wrongly, since the noise was made on purpose; (B,),
            bool, or None where that is not known. For diagnostics alone: a loss must not look at it.
        types: equal where the states of two tokens are the same by construction, such as the piece of a token whose
            state does not depend on the others; (B, T), int64, or None where that is not so. A gradient may then reach
            only one of the equal tokens, for all of them.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    ids: Tensor | None = None
    weights: Tensor | None = None
    noisy: Tensor | None = None
    types: Tensor | None = None

    def require_tokens(self) -> tuple[Tensor, Tensor]:
        """The token states (B, T, D) and their mask (B, T); ValueError if the encoder gave only pooled vectors."""
        if self.tokens is None or self.mask is None:
            raise ValueError(
                "this strategy needs token states, but the encoder gave only pooled vectors: "
                "encode with tokens=True (a strategy declares this with needs_tokens = True)"
            )
        return self.tokens, self.mask


@dataclass(frozen=True)
class ListEmbeddings(Embeddings):
    """One side of B pairs, each with a list of up to N candidate passages to score.

    The teacher's side holds the passages as the teacher encodes their sources. The student's side holds what the
    student's query is scored against: the student's vector of a passage that it reads, else the teacher's own.

    Args:
        candidates: passages, ``pooled`` (B, N, D), and where tokens are needed ``tokens`` (B, N, T, D) and ``mask``
            (B, N, T); ``ids`` (B, N), equal for the same passage on all ranks. Anything finite where not listed.
        listed: True at real candidates, which come first in a row; (B, N). A row may have none.
        scores: scores read from a file, (B, N), NaN where there is none; None where there is no score at all.
        keys: the id, among those of the candidates, of the pair's own source as a passage; (B,), int64.
    """

    candidates: Embeddings | None = None
    listed: Tensor | None = None
    scores: Tensor | None = None
    keys: Tensor | None = None

    def require_candidates(self) -> tuple[Embeddings, Tensor]:
        """The passages (B, N, ...), and True at those that are listed (B, N); ValueError without candidates."""
        if self.candidates is None or self.listed is None:
            raise ValueError(_NO_CANDIDATES)
        return self.candidates, self.listed


def require_lists(student: Embeddings, teacher: Embeddings) -> tuple[ListEmbeddings, ListEmbeddings]:
    """Both sides as a strategy on candidates needs them; ValueError if one has none."""
    if not isinstance(student, ListEmbeddings) or not isinstance(teacher, ListEmbeddings):
        raise ValueError(_NO_CANDIDATES)
    student.require_candidates()
    teacher.require_candidates()
    return student, teacher


class DistillationStrategy(nn.Module, ABC):
    """A distillation loss. Row i of the student belongs to row i of the teacher, if the pair is clean.

    A strategy knows tensors only: it never encodes, logs, or touches the trainer. It may own parameters
    (a learnable temperature); the module optimises them.
    """

    needs_tokens: bool = False
    """Whether the encoders must give token states. An instance may set it from its options."""

    sees_pooled: bool = True
    """Whether the loss depends on the pooled vectors. An instance may set it from its options."""

    needs_weights: bool = False
    """Whether the encoders must give token weights (IDF marginals). An instance may set it from its options."""

    needs_candidates: bool = False
    """Whether the pairs must list candidates; the sides are then `ListEmbeddings`."""

    uses_candidates: bool = False
    """Whether the sides are to be `ListEmbeddings` where the pairs list candidates, and plain where they do not."""

    uses_scores: bool = False
    """Whether scores of candidates that were read from a file count."""

    @abstractmethod
    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """Named scalar terms, which the module sums.

        Args:
            student: target side of the pairs, with gradient, already in the teacher's width.
            teacher: source side of the pairs, without gradient.

        Returns:
            Scalar tensors by name. Names that begin with ``info/`` are diagnostics: logged, not summed.
        """
