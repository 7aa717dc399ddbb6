"""Files of models: a tokenizer's, the weights in a checkpoint, and what a model's files are known by."""

from __future__ import annotations

import hashlib
import json
import pickle
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundations.cache import content_hash
from foundations.errors import InputError

_MODEL_FILES = (".json", ".safetensors", ".bin", ".pt", ".pth", ".txt", ".model")


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


def read_weights(path: Path) -> dict[str, Any]:
    """The weights in a checkpoint, on the CPU.

    Raises:
        InputError: the file is no checkpoint.
    """
    weights: dict[str, Any] = read_checkpoint(path)["state_dict"]
    return weights


def read_checkpoint(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """A checkpoint as a whole, on the CPU; nothing in it is run.

    Args:
        path: the file.
        needed: what it holds besides its weights.

    Raises:
        InputError: the file is no checkpoint, or lacks something.
    """
    import torch

    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = [name for name in ("state_dict", *needed) if name not in content]
    except (OSError, EOFError, ValueError, AttributeError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"cannot be read as a checkpoint ({type(error).__name__})", path) from error
    if missing:
        raise InputError(f"this is no checkpoint of a run: it has no {missing[0]}", path)
    return content


def misfit(error: Exception) -> str:
    """What torch found wrong with weights, in one line: the last of its page, such as the unexpected keys."""
    return textwrap.shorten(str(error).strip().splitlines()[-1].strip(), 200, placeholder=" ...")


def folder_hash(folder: Path, modules: bool = False) -> str:
    """BLAKE2b of a model's files in a folder: weights, configuration, tokenizer.

    Args:
        folder: the model's.
        modules: take the files in the folders of its modules as well.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([*folder.glob("*"), *(folder.glob("*/*") if modules else [])]):
        if path.suffix in _MODEL_FILES:
            digest.update(f"{path.relative_to(folder).as_posix()}:{content_hash(path)};".encode())
    return digest.hexdigest()
