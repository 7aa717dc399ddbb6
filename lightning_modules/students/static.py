"""A student without a transformer: token vectors and one linear layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundations.errors import InputError
from lightning_modules.models.pretrained import load_model, load_modules
from lightning_modules.students.base import TextEncoder
from lightning_modules.vectors import masked_mean
from strategies.base import Embeddings


class StaticEncoder(TextEncoder):
    """The mean of token vectors that do not see each other, after a linear layer.

    It starts from the word embeddings of a pretrained model, trains in a minute on a CPU, and encodes tens of
    thousands of short texts in a second. Special tokens and those of a prefix do not count. It is the first student to
    try, and the yardstick for a contextual one (`TransformerEncoder`).

    Args:
        model: whose word embeddings and tokenizer to start from: a starter name, a local folder, or a name on the
            Hugging Face hub; also a static model of sentence-transformers (``StaticEmbedding``).
        dim: width of the vectors; None keeps the embeddings' own. Another width needs ``linear``.
        linear: put a linear layer, which starts as the identity, after the token vectors.
        token_weights: learn a positive weight for each token in the mean; all start at 1.
        random_init: random token vectors with the deviation of the model's own.
        **options: of `TextEncoder`.

    Raises:
        InputError: there is no such model.
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        model: str = "starter/e5-small",
        *,
        dim: int | None = None,
        linear: bool = True,
        token_weights: bool = False,
        random_init: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model=model, **options)
        if self.own.is_static:
            first, *others = load_modules(model)
            rows = first.embedding.weight.detach()
            if extra := {type(module).__name__ for module in others} - {"Normalize"}:
                raise InputError(f"the static model {model} goes on with {', '.join(extra)}, expected Normalize alone")
        else:
            network, _ = load_model(model, layers=1, trust=self.trust)
            rows = network.get_input_embeddings().weight.detach()
        if random_init:
            rows = torch.randn_like(rows) * rows.std()
        width = rows.shape[1]
        if dim is not None and (dim < 1 or (dim != width and not linear)):
            raise ValueError(f"dim is {dim}, expected {width}, the width of {model}, or linear=true")
        self.embedding = nn.Embedding(len(rows), width, _weight=rows)
        self.token_weights = nn.Embedding(len(rows), 1, _weight=torch.zeros(len(rows), 1)) if token_weights else None
        self.linear = nn.Linear(width, dim or width) if linear else None
        if self.linear is not None:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.embedding.embedding_dim if self.linear is None else self.linear.out_features

    def forward(self, inputs: dict[str, Tensor], tokens: bool = False) -> Embeddings:
        """Encode tokenised texts; see `TextEncoder.forward`."""
        states = self.embedding(inputs["input_ids"])
        mask = inputs["token_mask"]
        weights = mask.to(torch.float32)
        if self.token_weights is not None:
            weights = weights * self.token_weights(inputs["input_ids"]).squeeze(-1).float().exp()
        if tokens:
            states = self._project(states)
            pooled = F.normalize(masked_mean(states, weights), dim=-1)
            return Embeddings(pooled, states, mask, weights=self._weights(inputs), types=inputs["input_ids"])
        # The linear layer is affine and the weights of the mean sum to one, so B rows need it instead of B * T.
        return Embeddings(F.normalize(self._project(masked_mean(states, weights)).float(), dim=-1))

    def token_tables(self) -> list[nn.Embedding]:
        """The token vectors, and the token weights where there are any."""
        return [self.embedding] if self.token_weights is None else [self.embedding, self.token_weights]

    def _project(self, states: Tensor) -> Tensor:
        return states if self.linear is None else self.linear(states)
