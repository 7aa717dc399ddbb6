"""Load a model and its tokenizer with ``transformers`` or ``sentence-transformers``, quietly and with clear errors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from foundations.checks import check_number
from foundations.errors import InputError
from lightning_modules.models.settings import model_file, own_settings
from lightning_modules.models.starter import resolve_model

_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "dropout_rate")
_LAYERS = ("num_hidden_layers", "encoder_layers")


def load_config(model: str, trust: bool = False) -> Any:
    """A model's configuration, without its weights.

    Args:
        model: a starter name, a folder, or a name on the hub.
        trust: run code that comes with the model.

    Returns:
        A ``transformers.PretrainedConfig``.

    Raises:
        InputError: there is no such model, or it comes with code.
    """
    from transformers import AutoConfig

    options = {"subfolder": own_settings(model).folder, "trust_remote_code": trust}
    with _clear_errors(model), quiet_transformers():
        return AutoConfig.from_pretrained(resolve_model(model), **options)


def load_model(
    model: str,
    layers: int | None = None,
    random_init: bool = False,
    dropout: float | None = None,
    trust: bool = False,
) -> tuple[Any, list[Any]]:
    """A model in float32 and training mode, without its pooler; of an encoder-decoder the encoder.

    Args:
        model: a starter name, a folder, or a name on the hub.
        layers: number of layers to keep, from the first; None keeps all.
        random_init: take the architecture only; the weights are random.
        dropout: probability for all dropout layers; None keeps the model's own.
        trust: run code that comes with the model.

    Returns:
        A ``transformers.PreTrainedModel``, and the modules of sentence-transformers that come after it, from the
        pooling on; none where the model has no ``modules.json``. ``from_pretrained`` gives the model in eval mode, in
        which it would be trained without dropout, so it is switched here.

    Raises:
        InputError: there is no such model.
        ValueError: the model has fewer layers, or no dropout under a known name.
    """
    config = load_config(model, trust)
    changes = _changes(config, model, layers, dropout)
    if own_settings(model).modules:
        first, *others = load_modules(model, changes, trust)
        network = first.auto_model
        if random_init:
            network = type(network)(network.config)
            for part in (part for module in others for part in module.modules()):
                getattr(part, "reset_parameters", lambda: None)()
    else:
        for name, value in changes.items():
            setattr(config, name, value)
        network, others = _load_plain(model, config, random_init, trust), []
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # not used; DDP would wait for its gradients
    network.set_input_embeddings(network.get_input_embeddings())  # T5 has the table twice: make it one module
    return network.float().train(), others


def load_modules(model: str, changes: dict[str, Any] | None = None, trust: bool = False) -> list[Any]:
    """The modules of a model with a ``modules.json``, loaded by sentence-transformers, on the CPU.

    Args:
        model: a folder, or a name on the hub.
        changes: of the transformer's configuration.
        trust: run code that comes with the model.

    Raises:
        InputError: the library cannot load it.
    """
    from sentence_transformers import SentenceTransformer  # takes seconds, so only those who need it import it

    options: dict[str, Any] = {"trust_remote_code": trust, "config_kwargs": changes}
    try:
        with quiet_transformers(), warnings.catch_warnings(action="ignore"):
            return list(SentenceTransformer(resolve_model(model), device="cpu", **options))
    except Exception as error:  # the library raises whatever it comes upon
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        raise InputError(f'sentence-transformers cannot load the model "{model}": {reason}') from error


def _load_plain(model: str, config: Any, random_init: bool, trust: bool) -> Any:
    import transformers

    encoders = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    auto: Any = transformers.AutoModelForTextEncoding if type(config) in encoders else transformers.AutoModel
    with _clear_errors(model), quiet_transformers():
        if random_init:
            network = auto.from_config(config, trust_remote_code=trust)
        else:
            options = {"config": config, "output_loading_info": True, "trust_remote_code": trust}
            network, report = auto.from_pretrained(resolve_model(model), **options)
            missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
            if missing:
                warnings.warn(f"{model}: random weights for {', '.join(missing[:5])} ...", stacklevel=2)
    return network.get_encoder() if network.config.is_encoder_decoder else network


def load_tokenizer(model: str, trust: bool = False) -> tuple[Any, dict[str, str]]:
    """A model's tokenizer as the ``tokenizers`` library has it, without truncation and padding.

    Args:
        model: a starter name, a folder, or a name on the hub.
        trust: run code that comes with the model.

    Returns:
        A ``tokenizers.Tokenizer``, and the special tokens by their names, e.g. ``{"pad_token": "[PAD]"}``.

    Raises:
        InputError: there is no such model, or it comes with code.
        ValueError: its tokenizer has no fast version.
    """
    from tokenizers import Tokenizer, normalizers
    from transformers import AutoTokenizer

    own, special = own_settings(model), {}
    if own.is_static:
        path = model_file(model, f"{own.folder}/tokenizer.json" if own.folder else "tokenizer.json")
        tokenizer = None if path is None else Tokenizer.from_file(str(path))
    else:
        options = {"subfolder": own.folder, "trust_remote_code": trust}
        with _clear_errors(model), quiet_transformers():
            loaded = AutoTokenizer.from_pretrained(resolve_model(model), **options)
        tokenizer = getattr(loaded, "backend_tokenizer", None)
        special = {name: str(token) for name, token in loaded.special_tokens_map.items() if name.endswith("_token")}
    if tokenizer is None:
        raise ValueError(f"the tokenizer of {model} has no fast version (tokenizer.json)")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if own.lower_case:
        steps = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer, special


def _changes(config: Any, model: str, layers: int | None, dropout: float | None) -> dict[str, Any]:
    """What layers and dropout change in a configuration."""
    changes: dict[str, Any] = {}
    if layers is not None:
        if not 1 <= layers <= config.num_hidden_layers:
            raise ValueError(
                f"layers is {layers}, expected a number from 1 to {config.num_hidden_layers}, those of {model}"
            )
        changes |= {name: layers for name in _LAYERS if hasattr(config, name)}
    if dropout is not None:
        check_number("dropout", dropout, least=0, below=1)
        names = [name for name in _DROPOUTS if isinstance(getattr(config, name, None), float | int)]
        if not names:
            raise ValueError(f"{model} has no dropout under a known name: leave out the option dropout")
        changes |= dict.fromkeys(names, dropout)
    return changes


@contextmanager
def _clear_errors(model: str) -> Iterator[None]:
    """One clear sentence instead of the library's page about a model that is not there, or comes with code."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        hint = "set trust_remote_code to true if you trust its authors"
        raise InputError(f'the model "{model}" comes with code of its own: {hint}') from error
    except OSError as error:
        where = "as a folder, in the Hugging Face cache, or on the hub"
        raise InputError(f'cannot load the model "{model}": not found {where} ({type(error).__name__})') from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Neither progress bars nor the list of weights that were left out on purpose (upper layers, pooler)."""
    from transformers import utils

    messages: Any = utils.logging
    library = logging.getLogger("sentence_transformers")
    level, bar, others = messages.get_verbosity(), messages.is_progress_bar_enabled(), library.level
    messages.set_verbosity_error()
    library.setLevel(logging.ERROR)
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        library.setLevel(others)
        if bar:
            messages.enable_progress_bar()
