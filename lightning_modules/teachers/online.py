"""A teacher that runs a ``transformers`` encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from foundations.cache import Array
from lightning_modules.models.files import folder_hash
from lightning_modules.models.pretrained import load_config, load_tokenizer
from lightning_modules.models.settings import DEFAULT_LENGTH, OwnSettings, model_file, own_settings, say_assumed
from lightning_modules.models.starter import STARTER_MODELS, resolve_model
from lightning_modules.students.base import TextEncoder, TextSide, side_prefixes
from lightning_modules.students.static import StaticEncoder
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
        pooling: see `TransformerEncoder`; None is what the model says, or the mean.
        max_length: longest text in tokens, special tokens included; what is longer is cut. None is what the model says,
            or 128.
        prefix: put before each text, e.g. ``"query: "`` for e5 models. None is the model's own prompt of each side;
            empty takes it away.
        batch_size: number of texts that are encoded together.
        device: where the model runs; ``auto`` is the current GPU if there is one, else the CPU.
        query_prefix: takes the place of prefix for queries; None does not.
        document_prefix: takes the place of prefix for documents; None does not.
        trust_remote_code: run code that comes with the model; without it such a model is refused.

    Raises:
        ValueError: batch_size is below 1.
    """

    def __init__(
        self,
        model: str = "starter/minilm",
        *,
        pooling: Pooling | None = None,
        max_length: int | None = None,
        prefix: str | None = None,
        batch_size: int = 64,
        device: str = "auto",
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__(model, batch_size, device)
        self.pooling, self.max_length, self.trust = pooling, max_length, trust_remote_code
        self._prefixes = prefix, query_prefix, document_prefix
        self._encoder: TextEncoder | None = None
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Width of the vectors, read from the model's configuration; one with modules is loaded."""
        if self._dim is None:
            plain = not self.own.modules
            self._dim = int(load_config(self.model, self.trust).hidden_size) if plain else self.encoder.dim
        return self._dim

    @cached_property
    def own(self) -> OwnSettings:
        """What the model's files say."""
        return own_settings(self.model)

    @cached_property
    def prefixes(self) -> dict[TextSide, str]:
        """What is put before texts, by side."""
        return side_prefixes(*self._prefixes, self.own)

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
        pooling = self.pooling
        if not self.own.modules and pooling is None:
            pooling = "mean"
            if self.model not in STARTER_MODELS:
                say_assumed(self.model, pooling)
        length = self.max_length or self.own.max_length or DEFAULT_LENGTH
        settings = {"model": self.model, "pooling": pooling, "max_length": length}
        return settings | {"prefix": self.prefixes[side], "format": _FORMAT}

    def tokenization(self) -> Tokenization:
        """How queries become tokens, made without loading the model."""
        tokenizer, special = load_tokenizer(self.model, self.trust)
        return Tokenization(
            tokenizer, self.settings()["max_length"], special.get("unk_token"), self.prefixes["queries"]
        )

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
        options: dict[str, Any] = {
            "max_length": self.max_length,
            "query_prefix": self.prefixes["queries"],
            "document_prefix": self.prefixes["documents"],
            "trust_remote_code": self.trust,
        }
        if self.own.is_static:
            return StaticEncoder(self.model, linear=False, **options)
        return TransformerEncoder(self.model, pooling=self.pooling, **options)

    def model_key(self) -> str:
        """A hash of a local folder's content, or the commit on the hub."""
        model = Path(resolve_model(self.model))
        if model.is_dir():
            return folder_hash(model, modules=bool(self.own.modules))
        # The hub's cache has a folder for each commit.
        file = model_file(self.model, "config.json") or model_file(self.model, "modules.json")
        return f"{self.model}@{file.parent.name if file else None}"
