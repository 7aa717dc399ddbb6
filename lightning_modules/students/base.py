"""The base of all students."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.images import PREFIX as IMAGE_PREFIX
from foundations.checks import check_choice, check_number
from foundations.errors import InputError
from lightning_modules.models.pretrained import load_tokenizer
from lightning_modules.models.settings import DEFAULT_LENGTH, OwnSettings, own_settings
from lightning_modules.students import vocabulary as vocabularies
from lightning_modules.students.tokens import (
    Encoding,
    EncodingMemory,
    Ints,
    Tokenization,
    padded_inputs,
    set_rows,
    start_rows,
)
from lightning_modules.vectors import idf_of_ids
from strategies.base import Embeddings


class TextEncoder(nn.Module, ABC):
    """Turns texts into vectors; the base of all students.

    ``truncated`` is the share of the last texts that it tokenised which it cut at ``max_length``.

    Args:
        model: where the tokenizer comes from: a starter name, a local folder, or a name on the Hugging Face hub.
        max_length: longest text in tokens, special tokens included; what is longer is cut. None is what the model says
            (`own_settings`), or 128.
        prefix: put before each text, e.g. ``"query: "``; its tokens are not among the real ones. None is the model's
            own prompt of each side; empty takes it away.
        vocabulary: ``keep`` the tokenizer's, ``trim`` it to given texts, or ``extend`` it for them. The last two
            happen in `adapt_vocabulary`.
        new_pieces: largest number of pieces that ``extend`` adds.
        query_prefix: takes the place of prefix for queries; None does not.
        document_prefix: takes the place of prefix for documents; None does not.
        trust_remote_code: run code that comes with the model; without it such a model is refused.

    Raises:
        ValueError: an option is out of range.
    """

    idf: Tensor
    query_augmentation: int = 0
    gains_by_bfloat16: ClassVar[bool] = False
    """Whether a CPU that multiplies bfloat16 trains it faster so: it does large matrix products."""

    def __init__(
        self,
        model: str,
        max_length: int | None = None,
        prefix: str | None = None,
        vocabulary: vocabularies.Mode = "keep",
        new_pieces: int = 4000,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        check_choice("vocabulary", vocabulary, get_args(vocabularies.Mode))
        check_number("max_length", DEFAULT_LENGTH if max_length is None else max_length, least=3)
        self.model_name, self.own, self.trust = model, own_settings(model), trust_remote_code
        self.max_length = max_length or self.own.max_length or DEFAULT_LENGTH
        self.prefixes = side_prefixes(prefix, query_prefix, document_prefix, self.own)
        self.vocabulary, self.new_pieces = vocabulary, new_pieces
        self.truncated = 0.0
        self._adapted: str | None = None  # the adapted tokenizer as JSON
        self._memory = EncodingMemory()
        tokenizer, self.special_tokens = load_tokenizer(model, self.trust)
        self._use_tokenizer(tokenizer)
        self.register_buffer("idf", torch.empty(0))

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def sides(self) -> tuple[TextSide, ...]:
        """The sides of which the vectors differ: only the first stands here where they do not."""
        differ = len(set(self.prefixes.values())) > 1 or self.query_augmentation
        return ("queries", "documents") if differ else ("queries",)

    @abstractmethod
    def forward(self, inputs: dict[str, Tensor], tokens: bool = False) -> Embeddings:
        """Encode tokenised texts.

        Args:
            inputs: what `tokenize` gave, on the encoder's device.
            tokens: whether to give token states as well.

        Returns:
            Pooled unit vectors, float32; with ``tokens`` the token states and the mask of real tokens, and their
            IDF where `fit_idf` was called.
        """

    @abstractmethod
    def token_tables(self) -> list[nn.Embedding]:
        """The tables with one row for each piece of the vocabulary."""

    def tokenize(self, texts: Sequence[str], side: TextSide = "queries") -> dict[str, Tensor]:
        """Texts as ids, padded to the longest of them.

        Args:
            texts: B texts, at least one; they are brought to Unicode's NFC.
            side: what they are read as.

        Returns:
            On the CPU, all (B, T): ``input_ids`` and ``attention_mask`` (int64), and ``token_mask`` (bool), True at
            real tokens: not special, not of the prefix. A text without real tokens has all its tokens there.

        Raises:
            ValueError: there are no texts.
        """
        if not texts:
            raise ValueError("there are no texts to tokenize")
        prefix = self.prefixes[side]
        encodings = self._memory.get(texts, prefix, lambda new: self._encode(new, prefix))
        self.truncated = sum(encoding.cut for encoding in encodings) / len(encodings)
        inputs = padded_inputs(encodings, self.pad_id)
        return self._augmented(inputs) if side == "queries" and self.query_augmentation else inputs

    def _augmented(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows with fewer tokens than ``query_augmentation`` filled up by mask tokens, which nothing attends to."""
        width = inputs["input_ids"].shape[1]
        fill = {"input_ids": self.pad_id, "attention_mask": 0, "token_mask": False}
        missing = max(0, self.query_augmentation - width)
        inputs = {name: F.pad(value, (0, missing), value=fill[name]) for name, value in inputs.items()}
        added = (inputs["attention_mask"] == 0) & (torch.arange(width + missing) < self.query_augmentation)
        mask_id = self.tokenizer.token_to_id(self.special_tokens["mask_token"])
        ids = inputs["input_ids"].masked_fill(added, mask_id)
        return inputs | {"input_ids": ids, "token_mask": inputs["token_mask"] | added}

    def fit_idf(self, texts: Iterable[str], side: TextSide = "queries") -> None:
        """Compute the inverse document frequency of each token, which `forward` then gives as ``weights``.

        It is log((1 + N) / (1 + n)) + 1 for a token in n of N texts, so a token that was never seen counts most.

        Args:
            texts: the texts to count in, e.g. all training texts.
            side: what they are read as.
        """
        idf = idf_of_ids(self.token_ids(texts, side), self._vocabulary_size())
        self.idf = torch.from_numpy(idf).to(self.idf.device)

    def token_ids(self, texts: Iterable[str], side: TextSide = "queries") -> Iterator[Ints]:
        """The ids of the real tokens of each text, (tokens of the text,)."""
        for chunk in vocabularies.chunks(texts, _CHUNK):
            inputs = self.tokenize(chunk, side)
            for ids, real in zip(inputs["input_ids"].numpy(), inputs["token_mask"].numpy(), strict=True):
                yield ids[real]

    def adapt_vocabulary(self, texts: Sequence[str]) -> None:
        """Change the vocabulary as the option ``vocabulary`` says; call it once, before training.

        Nothing happens with ``keep``, and nothing when the vocabulary was adapted already (by an earlier call, or
        by a checkpoint). The same texts give the same vocabulary.

        Args:
            texts: the texts of the target language, and all others that the encoder will read in training.

        Raises:
            ValueError: the tokenizer's kind is not known, or there are no texts.
        """
        if self.vocabulary == "keep" or self._adapted:
            return
        if not texts:
            raise ValueError("the vocabulary cannot be adapted to no texts")
        first, *others = dict.fromkeys(self.prefixes.values())
        normal = [first + unicodedata.normalize("NFC", text) for text in texts] + others
        if self.vocabulary == "trim":
            adapted = vocabularies.trim(self.tokenizer, normal)
        else:
            adapted = vocabularies.extend(self.tokenizer, normal, self.new_pieces)
        for table in self.token_tables():
            set_rows(table, start_rows(table.weight.detach(), adapted.sources))
        self._use_adapted(adapted.tokenizer)
        self.idf = self.idf.new_empty(0)  # of the old ids

    def get_extra_state(self) -> dict[str, str | None]:
        """The adapted tokenizer as JSON, or None: with it a checkpoint needs no training texts."""
        return {"tokenizer": self._adapted}

    def set_extra_state(self, state: Any) -> None:
        """Take over the adapted tokenizer of a checkpoint.

        PyTorch calls it before it loads the tables, which get their number of rows here.

        Raises:
            ValueError: the checkpoint's vocabulary was not adapted, but this encoder's was.
        """
        tokenizer = state["tokenizer"]
        if tokenizer is None:
            if self._adapted:
                raise ValueError("this encoder's vocabulary was adapted, the checkpoint's was not: build a new encoder")
            return
        self._use_adapted(tokenizer)
        rows = self._vocabulary_size()
        for table in self.token_tables():
            if len(table.weight) != rows:
                set_rows(table, table.weight.new_zeros(rows, table.embedding_dim))

    def tokenizer_json(self) -> str:
        """The tokenizer in the format of ``tokenizer.json``, without truncation and padding."""
        if self._adapted:
            return self._adapted
        plain = type(self.tokenizer).from_str(self.tokenizer.to_str())
        plain.no_truncation()
        plain.no_padding()
        return str(plain.to_str())

    def tokenization(self, side: TextSide = "queries") -> Tokenization:
        """How texts become tokens, for `text_statistics`.

        Args:
            side: what the texts are read as.
        """
        tokenizer = type(self.tokenizer).from_str(self.tokenizer_json())
        return Tokenization(tokenizer, self.max_length, self.special_tokens.get("unk_token"), self.prefixes[side])

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        idf = state_dict.get(f"{prefix}idf")
        if idf is not None:
            self.idf = torch.empty_like(idf, device=self.idf.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _encode(self, texts: Sequence[str], prefix: str) -> list[Encoding]:
        if image := next((text for text in texts if text.startswith(IMAGE_PREFIX)), None):
            raise InputError(
                f"{self.model_name} reads texts only, but was given an image: take a teacher of images, such as "
                "--teacher open_clip:ARCHITECTURE/WEIGHTS, and no siamese student",
                image,
            )
        normal = [prefix + unicodedata.normalize("NFC", text) for text in texts]
        encode = self.tokenizer.encode_batch if prefix else self.tokenizer.encode_batch_fast
        return [_encoding(each, len(prefix)) for each in encode(normal)]

    def _weights(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """IDF of each token, (B, T), zero where there is no real token."""
        return None if len(self.idf) == 0 else self.idf[inputs["input_ids"]] * inputs["token_mask"]

    def _vocabulary_size(self) -> int:
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def _use_tokenizer(self, tokenizer: Any) -> None:
        """Take a tokenizer; texts are cut by it."""
        pad = self.special_tokens.get("pad_token", "")
        self.pad_id = tokenizer.token_to_id(pad) or 0
        tokenizer.enable_truncation(self.max_length)
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self._memory.clear()

    def _use_adapted(self, tokenizer: str) -> None:
        self._use_tokenizer(type(self.tokenizer).from_str(tokenizer))
        self._adapted = tokenizer
        for table in self.token_tables():
            if table.padding_idx is not None:
                table.padding_idx = self.pad_id


def side_prefixes(
    prefix: str | None, query_prefix: str | None, document_prefix: str | None, own: OwnSettings
) -> dict[TextSide, str]:
    """The prefix of each side, in NFC: the side's own, else the one for both, else the model's prompt."""
    given: dict[TextSide, str | None] = {"queries": query_prefix, "documents": document_prefix}
    prompts = own.prompts if prefix is None else dict.fromkeys(given, prefix)
    return {
        side: unicodedata.normalize("NFC", prompts.get(side, "") if text is None else text)
        for side, text in given.items()
    }


def _encoding(encoding: Any, prefix: int) -> Encoding:
    """What the tokenizers library made of a text behind a prefix, whose length in characters is given."""
    real = np.array(encoding.special_tokens_mask) == 0
    if prefix:
        real &= np.array([end for _, end in encoding.offsets]) > prefix
    if not real.any():
        real[:] = True
    return Encoding(np.array(encoding.ids, dtype=np.int32), real, bool(encoding.overflowing))


TextSide = Literal["queries", "documents"]
"""What a text is read as; it matters only to encoders with prefixes or query augmentation."""

_CHUNK = 4096
