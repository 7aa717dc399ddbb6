"""What a model's own files say about how it reads texts: those that sentence-transformers writes, and positions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from foundations.errors import InputError
from foundations.files import read_json
from lightning_modules.models.starter import STARTER_MODELS, resolve_model

DEFAULT_LENGTH = 128
"""Tokens that a model reads where neither the user nor its files say how many."""

UNLIMITED = 10**6

_FIRST = ("Transformer", "StaticEmbedding")
_OTHERS = ("Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
_LATE = ("MultiVectorEncoder", "ColBERT")
"""Late-interaction models, as sentence-transformers and PyLate name them."""
_PROMPTS = {"queries": ("query",), "documents": ("document", "passage", "corpus")}
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")


@dataclass(frozen=True)
class OwnSettings:
    """How a model that sentence-transformers saved reads texts; without modules there is no such model.

    Args:
        modules: names of the classes in ``modules.json``, e.g. ``("Transformer", "Pooling", "Dense")``.
        folder: of the first module within the model's folder; empty is the folder itself.
        prompts: put before texts, by side.
        max_length: longest text in tokens, special tokens included; None where nothing says so.
        lower_case: whether texts are lowercased first.
    """

    modules: tuple[str, ...] = ()
    folder: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    max_length: int | None = None
    lower_case: bool = False

    @property
    def is_static(self) -> bool:
        """Whether it has token vectors in place of a transformer."""
        return self.modules[:1] == ("StaticEmbedding",)


def own_settings(model: str) -> OwnSettings:
    """What the files beside a model say, without loading it.

    The prompt of queries is the one named ``query``, that of documents the first of ``document``, ``passage`` and
    ``corpus`` that is not empty; where there is none of them, both sides have the model's default prompt. Of the
    starter models nothing is read: they are used as they always were, with mean pooling and `DEFAULT_LENGTH`. Of a
    late-interaction model only the prompts are read, since its modules are for tokens.

    Args:
        model: a starter name, a folder, or a name on the hub.

    Raises:
        InputError: a file is damaged, or ``modules.json`` has a module that is not supported.
    """
    path = None if model in STARTER_MODELS else model_file(model, "modules.json")
    if path is None:
        return OwnSettings()
    about = _read(model, "config_sentence_transformers.json")
    if about.get("model_type") in _LATE:
        return OwnSettings(prompts=_prompts(about))
    classes, folder = _read_modules(path)
    if classes[0] == "StaticEmbedding":
        return OwnSettings(classes, folder, _prompts(about), UNLIMITED)
    inside = f"{folder}/" if folder else ""
    first, config = _read(model, f"{inside}sentence_bert_config.json"), _read(model, f"{inside}config.json")
    if (output := first.get("module_output_name", "token_embeddings")) != "token_embeddings":
        raise InputError(f"the Transformer of {model} gives {output}, expected token_embeddings", path)
    lengths = [first.get("max_seq_length")]
    if lengths == [None]:
        lengths = [_read(model, f"{inside}tokenizer_config.json").get("model_max_length")]
    lengths.append(max_positions(SimpleNamespace(**config)))
    longest = min((int(length) for length in lengths if length and length < UNLIMITED), default=UNLIMITED)
    return OwnSettings(classes, folder, _prompts(about), longest, bool(first.get("do_lower_case")))


def model_file(model: str, name: str) -> Path | None:
    """A file of a model, downloaded where the model is on the hub; None where it has none of that name.

    Args:
        model: a starter name, a folder, or a name on the hub.
        name: of the file, with the folder within the model.
    """
    place = resolve_model(model)
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(place, name))
    except (HfHubHTTPError, OSError, ValueError):  # what is wrong with the model is said when it is loaded
        return None


def max_positions(config: Any) -> int | None:
    """Number of tokens that a model takes by its configuration, or None where it has no limit."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0:
        return None
    if getattr(config, "model_type", None) in _POSITIONS_AFTER_PADDING:
        return positions - int(getattr(config, "pad_token_id", 1) + 1)
    return positions


@cache
def say_assumed(model: str, pooling: str) -> None:
    """Say once, in one line on stderr, which pooling a model has for want of files that tell."""
    print(f"{model} has no modules.json: {pooling} pooling assumed", file=sys.stderr)


def _read_modules(path: Path) -> tuple[tuple[str, ...], str]:
    """The classes in a ``modules.json``, and the folder of the first."""
    content, expected = read_json(path), "a list of modules, each with a type and a path"
    try:
        kinds, folders = [str(each["type"]) for each in content], [str(each["path"]) for each in content]
    except (TypeError, KeyError):
        raise InputError(f"its content is something else, expected {expected}", path) from None
    if not kinds:
        raise InputError(f"it has no modules, expected {expected}", path)
    names = tuple(kind.rpartition(".")[2] for kind in kinds)
    for number, (kind, name) in enumerate(zip(kinds, names, strict=True), start=1):
        choices = _OTHERS if number > 1 else _FIRST
        if name not in choices or not kind.startswith("sentence_transformers."):
            raise InputError(f"module {number} is {kind}, expected sentence-transformers' {' or '.join(choices)}", path)
    if (count := names.count("Pooling")) != (names[0] == "Transformer"):
        raise InputError(f"it has {count} Pooling behind {names[0]}, expected {int(names[0] == 'Transformer')}", path)
    return names, folders[0]


def _read(model: str, name: str) -> dict[str, Any]:
    """The content of a model's JSON file; empty where it has none."""
    path = model_file(model, name)
    content = {} if path is None else read_json(path)
    if not isinstance(content, dict):
        raise InputError("expected JSON with keys and values", path)
    return content


def _prompts(about: dict[str, Any]) -> dict[str, str]:
    given = about.get("prompts") or {}
    texts = {name: text for name, text in given.items() if isinstance(text, str)}
    own = {side: next((texts[name] for name in names if texts.get(name)), "") for side, names in _PROMPTS.items()}
    if any(own.values()):
        return own
    return dict.fromkeys(own, texts.get(about.get("default_prompt_name") or "", ""))
