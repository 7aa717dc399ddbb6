"""Text encoders: the students, and the model within the online teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from foundations.errors import InputError
from foundations.files import new_folder
from lightning_modules.models.files import write_tokenizer
from lightning_modules.models.pretrained import load_model, max_positions, quiet_transformers
from lightning_modules.students import vocabulary as vocabularies
from lightning_modules.students.base import TextEncoder
from lightning_modules.vectors import PROJECTION, masked_mean, start_projection
from strategies.base import Embeddings

Pooling = Literal["mean", "cls"]


class TransformerEncoder(TextEncoder):
    """A ``transformers`` encoder with pooling.

    Mean pooling is sentence-transformers': over all tokens of the attention mask, special ones too. Token states
    leave the special ones out.

    For late interaction (ColBERT, Khattab & Zaharia 2020, section 3.2) ``output_dim`` puts a linear layer without
    bias over the states; the pooled vector is then the normalised mean (or first) of the projected states. Token
    states are given as they are: strategies and search scale them to unit length. With ``query_augmentation``
    mask tokens fill short queries; they are real tokens for MaxSim, but, as in ColBERT, no token attends to them, so
    the pooled vector does not change.

    Args:
        model: a starter name, a local folder, or a name on the Hugging Face hub.
        pooling: ``mean`` of the tokens, or ``cls``, the first one.
        max_length: longest text in tokens, special tokens included; what is longer is cut.
        layers: keep the first so many layers; None keeps all.
        random_init: take the architecture and the tokenizer only; the weights are random.
        prefix: put before each text, e.g. ``"query: "`` for e5 models.
        vocabulary: ``keep``, ``trim`` or ``extend``; see `TextEncoder`.
        new_pieces: largest number of pieces that ``extend`` adds.
        dropout: probability for all dropout layers; None keeps the model's own.
        output_dim: width of the linear projection, e.g. 128; None has no projection.
        query_augmentation: fill queries with mask tokens up to this many tokens, special ones included; 0 does not.
        query_prefix: takes the place of prefix for queries; None does not.
        document_prefix: takes the place of prefix for documents; None does not.

    Raises:
        InputError: there is no such model.
        ValueError: an option is out of range.
    """

    gains_by_bfloat16 = True

    def __init__(
        self,
        model: str = "starter/e5-small",
        *,
        pooling: Pooling = "mean",
        max_length: int = 128,
        layers: int | None = None,
        random_init: bool = False,
        prefix: str = "",
        vocabulary: vocabularies.Mode = "keep",
        new_pieces: int = 4000,
        dropout: float | None = None,
        output_dim: int | None = None,
        query_augmentation: int = 0,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be mean or cls; got {pooling!r}")
        if output_dim is not None and output_dim < 1:
            raise ValueError(f"output_dim must be at least 1; got {output_dim}")
        super().__init__(model, max_length, prefix, vocabulary, new_pieces, query_prefix, document_prefix)
        if not 0 <= query_augmentation <= max_length:
            raise ValueError(f"query_augmentation must be from 0 to max_length={max_length}; got {query_augmentation}")
        if query_augmentation and "mask_token" not in self.special_tokens:
            raise ValueError(f"query_augmentation needs a tokenizer with a mask token, which that of {model} lacks")
        self.query_augmentation = query_augmentation
        self.pooling = pooling
        self.model = load_model(model, layers, random_init, dropout)
        limit = max_positions(self.model.config)
        if limit is not None and max_length > limit:
            raise ValueError(f"max_length must be at most {limit}, the positions of {model}; got {max_length}")
        width = int(self.model.config.hidden_size)
        self.projection = None if output_dim is None else nn.Linear(width, output_dim, bias=False)
        if self.projection is not None:
            start_projection(self.projection, Path(model).expanduser() / PROJECTION)

    @property
    def dim(self) -> int:
        """Width of the vectors: the projection's, or the model's hidden size."""
        return int(self.model.config.hidden_size) if self.projection is None else self.projection.out_features

    def forward(self, inputs: dict[str, Tensor], tokens: bool = False) -> Embeddings:
        """Encode tokenised texts; see `TextEncoder.forward`."""
        attention = inputs["attention_mask"]
        states = self.model(input_ids=inputs["input_ids"], attention_mask=attention).last_hidden_state
        if self.projection is not None:
            states = self.projection(states)
        pooled = states[:, 0].float() if self.pooling == "cls" else masked_mean(states, attention)
        pooled = F.normalize(pooled, dim=-1)
        if not tokens:
            return Embeddings(pooled)
        return Embeddings(pooled, states, inputs["token_mask"], weights=self._weights(inputs))

    def token_tables(self) -> list[nn.Embedding]:
        """The word embeddings."""
        return [self.model.get_input_embeddings()]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model and its tokenizer as a folder that AutoModel and AutoTokenizer load.

        A projection is no part of an AutoModel: its matrix goes into ``projection.safetensors`` beside it, under the
        name ``weight``, (output_dim, hidden size); sides and query augmentation are not written. A
        `TransformerEncoder` with that folder as its model and the same ``output_dim`` starts from this projection.

        Args:
            folder: a folder that does not exist yet, or is empty.

        Raises:
            InputError: the folder holds something.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("the folder is not empty: give another one, or remove it first", folder)
        plain = type(self.tokenizer).from_str(self.tokenizer_json())
        self.model.config.name_or_path = ""
        with new_folder(folder) as temporary, quiet_transformers():
            self.model.save_pretrained(temporary)
            if self.projection is not None:
                save_file({"weight": self.projection.weight.detach().cpu()}, temporary / PROJECTION)
            write_tokenizer(temporary, plain, self.special_tokens, self.max_length)

    def _use_adapted(self, tokenizer: str) -> None:
        super()._use_adapted(tokenizer)
        config = self.model.config
        config.vocab_size = self._vocabulary_size()
        for name in ("pad", "bos", "eos", "cls", "sep"):
            token = self.special_tokens.get(f"{name}_token")
            if token is not None and getattr(config, f"{name}_token_id", None) is not None:
                setattr(config, f"{name}_token_id", self.tokenizer.token_to_id(token))
