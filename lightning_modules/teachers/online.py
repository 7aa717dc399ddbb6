"""A teacher that runs a ``transformers`` encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from foundations.cache import Array
from lightning_modules.lightning_private import commit_of
from lightning_modules.models.files import folder_hash
from lightning_modules.models.pretrained import load_config, load_tokenizer
from lightning_modules.models.starter import resolve_model
from lightning_modules.students.base import TextEncoder, TextSide, side_prefixes
from lightning_modules.students.tokens import Tokenization
from lightning_modules.students.transformer import Pooling, TransformerEncoder
from lightning_modules.teachers.base import ModelTeacher
from strategies.base import Embeddings

_FORMAT = 1
"""Part of the fingerprint: raise it when the same model and settings give other vectors."""


class OnlineTeacher(ModelTeacher):
    """Runs a ``transformers`` encoder whenever it is asked; see `ModelTeacher`.

    Args:
        model: a starter name, a local folder, or a name on the Hugging Face hub.
        pooling: ``mean`` of the tokens, or ``cls``, the first one.
        max_length: longest text in tokens, special tokens included; what is longer is cut.
        prefix: put before each text, e.g. ``"query: "`` for e5 models.
        batch_size: number of texts that are encoded together.
        device: where the model runs; ``auto`` is the current GPU if there is one, else the CPU.
        query_prefix: takes the place of prefix for queries; None does not.
        document_prefix: takes the place of prefix for documents; None does not.

    Raises:
        ValueError: batch_size is below 1.
    """

    def __init__(
        self,
        model: str = "starter/minilm",
        *,
        pooling: Pooling = "mean",
        max_length: int = 128,
        prefix: str = "",
        batch_size: int = 64,
        device: str = "auto",
        query_prefix: str | None = None,
        document_prefix: str | None = None,
    ) -> None:
        super().__init__(model, batch_size, device)
        self.pooling, self.max_length = pooling, max_length
        self.prefixes = side_prefixes(prefix, query_prefix, document_prefix)
        self._encoder: TextEncoder | None = None
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Width of the vectors, read from the model's configuration."""
        if self._dim is None:
            self._dim = int(load_config(self.model).hidden_size)
        return self._dim

    @property
    def reads_images(self) -> bool:
        """No; `lightning_modules.teachers.images` does."""
        return False

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """Both sides where their prefixes differ; see `Encoder.sides`."""
        return ("queries", "documents") if len(set(self.prefixes.values())) > 1 else ("queries",)

    @property
    def encoder(self) -> TextEncoder:
        """The frozen model in eval mode, loaded on first use."""
        if self._encoder is None:
            self._encoder = self._load().requires_grad_(False).eval().to(self.model_device)
        return self._encoder

    def load(self) -> None:
        """See `ModelTeacher.load`."""
        _ = self.encoder

    def settings(self, side: TextSide = "queries") -> dict[str, Any]:
        """See `ModelTeacher.settings`."""
        keys = ("model", "pooling", "max_length")
        return {key: getattr(self, key) for key in keys} | {"prefix": self.prefixes[side], "format": _FORMAT}

    def tokenization(self) -> Tokenization:
        """How queries become tokens, made without loading the model."""
        tokenizer, special = load_tokenizer(self.model)
        return Tokenization(tokenizer, self.max_length, special.get("unk_token"), self.prefixes["queries"])

    def token_ids(self, texts: Sequence[str], side: TextSide = "queries") -> list[Array]:
        """The ids of the real tokens of each text, (tokens of the text,)."""
        return list(self.encoder.token_ids(texts, side))

    def encode_batch(self, texts: list[str], tokens: bool, side: TextSide) -> tuple[Embeddings, Tensor]:
        """See `ModelTeacher.encode_batch`."""
        encoder = self.encoder
        inputs = encoder.tokenize(texts, side)
        device = next(encoder.parameters()).device
        embeddings: Embeddings = encoder({name: value.to(device) for name, value in inputs.items()}, tokens)
        return embeddings, inputs["input_ids"]

    def _load(self) -> TextEncoder:
        return TransformerEncoder(
            self.model,
            pooling=self.pooling,
            max_length=self.max_length,
            query_prefix=self.prefixes["queries"],
            document_prefix=self.prefixes["documents"],
        )

    def model_key(self) -> str:
        """A hash of a local folder's content, or the commit on the hub."""
        model = resolve_model(self.model)
        return folder_hash(Path(model)) if Path(model).is_dir() else f"{model}@{commit_of(load_config(model))}"
