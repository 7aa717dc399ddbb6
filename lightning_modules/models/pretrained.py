"""Load a model and its tokenizer with ``transformers``, quietly and with clear errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from foundations.checks import check_number
from foundations.errors import InputError
from lightning_modules.models.starter import resolve_model

_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")


def load_config(model: str) -> Any:
    """A model's configuration, without its weights.

    Args:
        model: a starter name, a folder, or a name on the hub.

    Returns:
        A ``transformers.PretrainedConfig``.

    Raises:
        InputError: there is no such model.
    """
    from transformers import AutoConfig

    with _clear_errors(model), quiet_transformers():
        return AutoConfig.from_pretrained(resolve_model(model))


def load_model(model: str, layers: int | None = None, random_init: bool = False, dropout: float | None = None) -> Any:
    """A model in float32 and training mode, without its pooler.

    Args:
        model: a starter name, a folder, or a name on the hub.
        layers: number of layers to keep, from the first; None keeps all.
        random_init: take the architecture only; the weights are random.
        dropout: probability for all dropout layers; None keeps the model's own.

    Returns:
        A ``transformers.PreTrainedModel``. ``from_pretrained`` gives it in eval mode, in which it would be trained
        without dropout, so it is switched here.

    Raises:
        InputError: there is no such model.
        ValueError: the model has fewer layers, or no dropout under a known name.
    """
    import transformers

    auto: Any = transformers.AutoModel
    config = load_config(model)
    if layers is not None:
        if not 1 <= layers <= config.num_hidden_layers:
            raise ValueError(
                f"layers is {layers}, expected a number from 1 to {config.num_hidden_layers}, those of {model}"
            )
        config.num_hidden_layers = layers
    if dropout is not None:
        _set_dropout(config, dropout, model)
    with _clear_errors(model), quiet_transformers():
        if random_init:
            network = auto.from_config(config)
        else:
            path = resolve_model(model)
            network, report = auto.from_pretrained(path, config=config, output_loading_info=True)
            missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
            if missing:
                warnings.warn(f"{model}: random weights for {', '.join(missing[:5])} ...", stacklevel=2)
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # not used; DDP would wait for its gradients
    return network.float().train()


def load_tokenizer(model: str) -> tuple[Any, dict[str, str]]:
    """A model's tokenizer as the ``tokenizers`` library has it, without truncation and padding.

    Args:
        model: a starter name, a folder, or a name on the hub.

    Returns:
        A ``tokenizers.Tokenizer``, and the special tokens by their names, e.g. ``{"pad_token": "[PAD]"}``.

    Raises:
        InputError: there is no such model.
        ValueError: its tokenizer has no fast version.
    """
    from transformers import AutoTokenizer

    with _clear_errors(model), quiet_transformers():
        loaded = AutoTokenizer.from_pretrained(resolve_model(model))
    tokenizer = getattr(loaded, "backend_tokenizer", None)
    if tokenizer is None:
        raise ValueError(f"the tokenizer of {model} has no fast version (tokenizer.json)")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = {name: str(token) for name, token in loaded.special_tokens_map.items() if name.endswith("_token")}
    return tokenizer, special


def max_positions(config: Any) -> int | None:
    """Number of tokens that a model takes, or None where it has no limit."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in _POSITIONS_AFTER_PADDING:
        return positions - int(config.pad_token_id + 1)
    return positions


def _set_dropout(config: Any, dropout: float, model: str) -> None:
    check_number("dropout", dropout, least=0, below=1)
    names = [name for name in _DROPOUTS if isinstance(getattr(config, name, None), float | int)]
    if not names:
        raise ValueError(f"{model} has no dropout under a known name: leave out the option dropout")
    for name in names:
        setattr(config, name, dropout)


@contextmanager
def _clear_errors(model: str) -> Iterator[None]:
    """One clear sentence instead of the library's page about a model that is not there."""
    try:
        yield
    except OSError as error:
        where = "as a folder, in the Hugging Face cache, or on the hub"
        raise InputError(f'cannot load the model "{model}": not found {where} ({type(error).__name__})') from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Neither progress bars nor the list of weights that were left out on purpose (upper layers, pooler)."""
    from transformers import utils

    logging: Any = utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
