"""Text encoders: the students, and the model within the online teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from foundations.files import new_folder
from lightning_modules.models.files import write_tokenizer
from lightning_modules.models.pretrained import load_model, max_positions, quiet_transformers
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
        layers: number of layers to keep, from the first; None keeps all.
        random_init: take the architecture and the tokenizer only; the weights are random.
        dropout: probability for all dropout layers; None keeps the model's own.
        output_dim: width of the linear projection, e.g. 128; None has no projection.
        query_augmentation: fill queries with mask tokens up to this many tokens, special ones included; 0 does not.
        **options: of `TextEncoder`.

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
        layers: int | None = None,
        random_init: bool = False,
        dropout: float | None = None,
        output_dim: int | None = None,
        query_augmentation: int = 0,
        **options: Any,
    ) -> None:
        check_choice("pooling", pooling, get_args(Pooling))
        check_number("output_dim", 1 if output_dim is None else output_dim, least=1)
        super().__init__(model=model, **options)
        check_number("query_augmentation", query_augmentation, least=0, most=self.max_length)
        if query_augmentation and "mask_token" not in self.special_tokens:
            raise ValueError(f"query_augmentation needs a tokenizer with a mask token, which that of {model} lacks")
        self.query_augmentation = query_augmentation
        self.pooling = pooling
        self.model = load_model(model, layers, random_init, dropout)
        limit = max_positions(self.model.config)
        if limit is not None and self.max_length > limit:
            raise ValueError(f"max_length is {self.max_length}, expected at most {limit}, the positions of {model}")
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

        A projection is no part of an AutoModel: its matrix goes into ``projection.safetensors`` next to it, under the
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
