"""The modules of sentence-transformers behind a transformer: pooling, dense layers, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foundations.errors import InputError


class Pooled(nn.Module):
    """Token states as one vector, by the library's own modules.

    Args:
        modules: of sentence-transformers, one of them a ``Pooling``; empty for a ``Pooling`` alone.
        width: of the token states.
        mode: takes the place of what the ``Pooling`` does; None does not.

    Raises:
        InputError: the modules do not fit each other, or the mode does not fit them.
    """

    def __init__(self, modules: Sequence[Any], width: int, mode: str | None = None) -> None:
        super().__init__()
        names = [type(module).__name__ for module in modules] or ["Pooling"]
        self.position = names.index("Pooling")
        chain = list(modules)
        if mode is not None:
            from sentence_transformers.sentence_transformer.modules import Pooling

            includes = getattr(chain[self.position], "include_prompt", True) if chain else True
            chain[self.position : self.position + 1] = [Pooling(width, mode, includes)]
        self.chain = nn.ModuleList(chain).float()
        try:
            self.dim = int(self(torch.zeros(1, 1, width), torch.ones(1, 1))[0].shape[1])
        except (RuntimeError, KeyError) as error:
            raise InputError(f"the modules {', '.join(names)} do not fit each other: {error}") from error

    @property
    def excludes_prompt(self) -> bool:
        """Whether the tokens of a prompt are left out of the pooling."""
        return not self.chain[self.position].include_prompt

    def forward(self, states: Tensor, attention: Tensor, prompt_length: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool token states.

        Args:
            states: (B, T, W).
            attention: 1 at tokens that the transformer read; (B, T).
            prompt_length: number of a prompt's tokens, where they are left out; (B,).

        Returns:
            Pooled vectors (B, D), of the length that the modules give them, and token states (B, T, W) as they were
            when they were pooled.
        """
        features: dict[str, Any] = {"token_embeddings": states, "attention_mask": attention}
        if prompt_length is not None:
            features["prompt_length"] = prompt_length
        for module in self.chain:
            features = module(features)
        return features["sentence_embedding"], features["token_embeddings"]

    def in_pooled_space(self, states: Tensor) -> Tensor:
        """Token states through what comes behind the pooling, but for normalisation: (B, T, W) to (B, T, D).

        Raises:
            InputError: a pooled vector is several vectors of the tokens' width side by side.
        """
        mode: Any = self.chain[self.position].pooling_mode
        if not isinstance(mode, str):
            joined = ", ".join(mode)
            raise InputError(f"the model's pooling joins {joined}: its tokens are not in the space of its vectors")
        for module in self.chain[self.position + 1 :]:
            if type(module).__name__ != "Normalize":
                states = module({"sentence_embedding": states})["sentence_embedding"]
        return states
