"""Texts as ids, tokenised once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Ints = np.ndarray[Any, np.dtype[np.int32]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
MOST_TEXTS = 200_000
"""Texts that an encoder remembers; a text of 30 tokens takes about half a kilobyte."""


@dataclass(frozen=True)
class Tokenization:
    """How a model turns texts into tokens.

    Args:
        tokenizer: of the ``tokenizers`` library, without truncation and padding.
        max_length: tokens that the model reads, special ones included.
        unknown: the token for what the vocabulary lacks; None where it lacks nothing.
        prefix: put before each text.
    """

    tokenizer: Any
    max_length: int
    unknown: str | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Encoding:
    """A text as ids.

    Args:
        ids: of its T tokens, special ones included; (T,).
        real: True at real tokens: not special, not of a prefix; (T,), at least one True.
        cut: whether the text was longer than the encoder reads.
    """

    ids: Ints
    real: Flags
    cut: bool


class EncodingMemory:
    """Remembers the encodings of texts: epochs and validations ask for the same ones again.

    It keeps the first texts that it sees, at most ``most`` of them, until `clear`.
    """

    def __init__(self, most: int = MOST_TEXTS) -> None:
        self.most = most
        self._known: dict[tuple[str, str], Encoding] = {}

    def get(self, texts: Sequence[str], prefix: str, encode: Callable[[list[str]], list[Encoding]]) -> list[Encoding]:
        """The encodings of some texts.

        Args:
            texts: any texts.
            prefix: what stands before each of them; part of the key.
            encode: tokenises texts that are not known.
        """
        new = list(dict.fromkeys(text for text in texts if (prefix, text) not in self._known))
        fresh = dict(zip(new, encode(new), strict=True)) if new else {}
        room = max(0, self.most - len(self._known))
        self._known.update({(prefix, text): fresh[text] for text in new[:room]})
        return [fresh[text] if text in fresh else self._known[prefix, text] for text in texts]

    def clear(self) -> None:
        """Forget everything; for another tokenizer."""
        self._known.clear()


def padded_inputs(encodings: Sequence[Encoding], pad_id: int) -> dict[str, Tensor]:
    """B encodings as one batch, padded at the end; see `TextEncoder.tokenize`."""
    lengths = np.array([len(encoding.ids) for encoding in encodings])
    attended = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(attended.shape, pad_id, dtype=np.int64)
    real = np.zeros(attended.shape, dtype=bool)
    ids[attended] = np.concatenate([encoding.ids for encoding in encodings])
    real[attended] = np.concatenate([encoding.real for encoding in encodings])
    arrays = {"input_ids": ids, "attention_mask": attended.astype(np.int64), "token_mask": real}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def start_rows(table: Tensor, sources: list[list[int]]) -> Tensor:
    """The W rows of a new table, (W, D): each the mean of its rows in the old one, (V, D)."""
    rows = table[torch.tensor([ids[0] for ids in sources], device=table.device)]
    for row, ids in enumerate(sources):
        if len(ids) > 1:
            rows[row] = table[ids].mean(0)
    return rows


def set_rows(table: nn.Embedding, rows: Tensor) -> None:
    """Put other rows into an embedding table, as a new parameter; do it before the optimiser is made."""
    table.weight = nn.Parameter(rows, requires_grad=table.weight.requires_grad)
    table.num_embeddings = len(rows)
