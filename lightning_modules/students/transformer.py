"""Text encoders: the students, and the model within the online teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from foundations.files import new_folder
from lightning_modules.models.files import write_modules, write_tokenizer
from lightning_modules.models.pretrained import load_model, quiet_transformers
from lightning_modules.models.settings import max_positions, say_assumed
from lightning_modules.models.starter import STARTER_MODELS
from lightning_modules.students.base import TextEncoder, TextSide
from lightning_modules.students.pooling import Pooled
from lightning_modules.vectors import PROJECTION, masked_mean, start_projection
from strategies.base import Embeddings

Pooling = Literal["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]


class TransformerEncoder(TextEncoder):
    """A ``transformers`` encoder with pooling; of an encoder-decoder the encoder.

    Mean pooling is sentence-transformers': over all tokens of the attention mask, special ones too. Token states
    leave the special ones out.

    What sentence-transformers wrote into the model's folder holds where no option says otherwise: pooling, maximal
    length, prompts, and layers behind the pooling (Dense, LayerNorm), which are trained with the rest. Pooled vectors
    are then the library's, scaled to unit length. Token states go through the layers behind the pooling as well, so
    that they lie in the space of the pooled vectors.

    For late interaction (ColBERT, Khattab & Zaharia 2020, section 3.2) ``output_dim`` puts a linear layer without
    bias over the states; the pooled vector is then the normalised mean (or first) of the projected states, or, with
    layers of sentence-transformers, their projected vector. Token states are given as they are: strategies and search
    scale them to unit length. With ``query_augmentation`` mask tokens fill short queries; they are real tokens for
    MaxSim, but, as in ColBERT, no token attends to them, so the pooled vector does not change.

    Args:
        model: a starter name, a local folder, or a name on the Hugging Face hub.
        pooling: ``mean`` of the tokens, ``cls``, the first one, or another one of sentence-transformers. None is what
            the model says, or the mean.
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
        pooling: Pooling | None = None,
        layers: int | None = None,
        random_init: bool = False,
        dropout: float | None = None,
        output_dim: int | None = None,
        query_augmentation: int = 0,
        **options: Any,
    ) -> None:
        check_choice("pooling", pooling or "mean", get_args(Pooling))
        check_number("output_dim", 1 if output_dim is None else output_dim, least=1)
        super().__init__(model=model, **options)
        check_number("query_augmentation", query_augmentation, least=0, most=self.max_length)
        if query_augmentation and "mask_token" not in self.special_tokens:
            raise ValueError(f"query_augmentation needs a tokenizer with a mask token, which that of {model} lacks")
        self.query_augmentation = query_augmentation
        if self.own.is_static:
            raise InputError(f"{model} is a static model, expected one with a transformer: take the static student")
        self.model, modules = load_model(model, layers, random_init, dropout, self.trust)
        limit = max_positions(self.model.config)
        if limit is not None and self.max_length > limit:
            raise ValueError(f"max_length is {self.max_length}, expected at most {limit}, the positions of {model}")
        self.pooling: str | None = pooling
        if not modules and pooling is None:
            self.pooling = "mean"
            if model not in STARTER_MODELS and not random_init:
                say_assumed(model, "mean")
        width = int(self.model.config.hidden_size)
        by_library = modules or self.pooling not in ("mean", "cls")
        self.behind = Pooled(modules, width, pooling) if by_library else None
        inner = width if self.behind is None else self.behind.dim
        self.projection = None if output_dim is None else nn.Linear(inner, output_dim, bias=False)
        self._dim = output_dim or inner
        if self.projection is not None:
            start_projection(self.projection, Path(model).expanduser() / PROJECTION)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._dim

    def tokenize(self, texts: Sequence[str], side: TextSide = "queries") -> dict[str, Tensor]:
        """See `TextEncoder.tokenize`; where a prompt is left out of the pooling, also its ``prompt_length``, (B,)."""
        inputs, prefix = super().tokenize(texts, side), self.prefixes[side]
        if prefix and self.behind is not None and self.behind.excludes_prompt:
            special = self.tokenizer.encode(prefix).special_tokens_mask
            inputs["prompt_length"] = torch.full((len(texts),), len(special) - special[-1])
        return inputs

    def forward(self, inputs: dict[str, Tensor], tokens: bool = False) -> Embeddings:
        """Encode tokenised texts; see `TextEncoder.forward`."""
        attention = inputs["attention_mask"]
        states = self.model(input_ids=inputs["input_ids"], attention_mask=attention).last_hidden_state
        if self.behind is None:
            states = self._project(states)
            pooled = states[:, 0].float() if self.pooling == "cls" else masked_mean(states, attention)
        else:
            pooled, states = self.behind(states, attention, inputs.get("prompt_length"))
            pooled = self._project(pooled).float()
            states = self._project(self.behind.in_pooled_space(states)) if tokens else states
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

        A model of sentence-transformers becomes one again, with its modules as they are now, length and prompts.

        Args:
            folder: a folder that does not exist yet, or is empty.

        Raises:
            InputError: the folder holds something, or the model is an encoder that transformers loads with its decoder.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("the folder is not empty: give another one, or remove it first", folder)
        if self.model.config.is_encoder_decoder:
            raise InputError(f"{type(self.model).__name__} cannot be saved without its decoder", folder)
        plain = type(self.tokenizer).from_str(self.tokenizer_json())
        self.model.config.name_or_path = ""
        with new_folder(folder) as temporary, quiet_transformers():
            self.model.save_pretrained(temporary)
            if self.projection is not None:
                save_file({"weight": self.projection.weight.detach().cpu()}, temporary / PROJECTION)
            write_tokenizer(temporary, plain, self.special_tokens, self.max_length)
            if self.behind is not None:
                write_modules(temporary, list(self.behind.chain), self.max_length, *self.prefixes.values())

    def _project(self, vectors: Tensor) -> Tensor:
        return vectors if self.projection is None else self.projection(vectors)

    def _use_adapted(self, tokenizer: str) -> None:
        super()._use_adapted(tokenizer)
        config = self.model.config
        config.vocab_size = self._vocabulary_size()
        for name in ("pad", "bos", "eos", "cls", "sep"):
            token = self.special_tokens.get(f"{name}_token")
            if token is not None and getattr(config, f"{name}_token_id", None) is not None:
                setattr(config, f"{name}_token_id", self.tokenizer.token_to_id(token))
