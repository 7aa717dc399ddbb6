"""Cosine distillation of pooled vectors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from strategies.base import DistillationStrategy, Embeddings
from strategies.functional import at_least_float32, check_widths, without_autocast


class Cosine(DistillationStrategy):
    """Turns the student's vector of a text into the direction of the teacher's vector of the source.

    The loss of a pair is 1 - cosine(s, t), mean over the batch.

    Source: the cosine embedding loss of DistilBERT, Sanh et al. 2019 (arXiv 1910.01108), section 3, on pooled vectors.

    Relations: for vectors of unit length, which our encoders give, ||s - t||^2 = 2 (1 - cosine): exactly half of
    ``MSE``, with half the gradient. Under an optimiser that ignores the scale of the gradient (AdamW) the two train
    the same student; this one is for comparison with work that reports it, and for weights in a ``WeightedSum``.

    Inputs: pooled vectors.

    Shape:
        - student.pooled, teacher.pooled (B, D)
        - ``cosine``: scalar, 0 to 2

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
        >>> Cosine()(Embeddings(student), Embeddings(teacher))
        {'cosine': tensor(0.2000)}
    """

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """1 minus the mean cosine."""
        check_widths(student, teacher)
        with without_autocast(student.pooled):
            cosines = F.cosine_similarity(at_least_float32(student.pooled), at_least_float32(teacher.pooled), dim=1)
            return {"cosine": (1 - cosines).mean()}
