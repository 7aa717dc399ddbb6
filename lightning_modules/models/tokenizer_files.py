"""The tokenizer files of a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_tokenizer(folder: Path, tokenizer: Any, special_tokens: Mapping[str, str], max_length: int) -> None:
    """Write ``tokenizer.json`` and its settings so that ``AutoTokenizer`` takes it as it is.

    The class is named ``PreTrainedTokenizerFast`` whatever the model: a model's own class may build its normaliser
    again from settings, and the name that transformers 5 writes is unknown to transformers 4.

    Args:
        folder: an existing folder.
        tokenizer: a ``tokenizers.Tokenizer``.
        special_tokens: for example ``{"pad_token": "[PAD]"}``.
        max_length: number of tokens that the model takes.
    """
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **special_tokens,
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in (("tokenizer_config.json", settings), ("special_tokens_map.json", dict(special_tokens))):
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
