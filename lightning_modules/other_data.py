"""``evaluate.py RUN --data NAME``: a finished student on the test collection of another dataset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lightning_modules.front_door import class_path, option_pairs
from retrieval.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from datamodules.image_splits import SplitByImage


def take_data_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command line of evaluate.py.

    Args:
        arguments: as typed.

    Returns:
        The others, and those of another dataset, with its class path; none of them where there is no ``--data``.

    Raises:
        InputError: an unknown dataset, or options of one without ``--data NAME``.
    """
    others: list[str] = []
    options: list[str] = []
    chosen: str | None = None
    for argument, name, value in option_pairs(arguments):
        typed = [argument] if value is None or "=" in argument else [argument, value]
        if name == "data":
            if not value:
                raise InputError("--data needs the name of a dataset, such as flickr30k_entities")
            chosen = class_path("data", value)
        elif name.startswith("data."):
            options += typed
        else:
            others += typed
    if chosen is None and options:
        raise InputError(f"{options[0]} is an option of another dataset: name it, --data NAME")
    # The teacher has no need of the pairs, only the vocabulary had, which the checkpoint holds.
    return others, [] if chosen is None else [f"--data={chosen}", "--data.cache_pairs=false", *options]


def refuse_trained_images(config: Path, data: LightningDataModule) -> None:
    """See to it that no image of the test was trained on: Flickr30k has two splits.

    Args:
        config: the run's config.yaml.
        data: what the run is to be evaluated on.

    Raises:
        InputError: there is such an image.
    """
    from datamodules.image_splits import SplitByImage

    parts = getattr(data, "parts", {"": data}).values()
    evaluated = [part.image_splits().evaluated for part in parts if isinstance(part, SplitByImage)]
    if not evaluated:
        return
    trained = _trained_images(yaml.safe_load(config.read_text(encoding="utf-8"))["data"])
    tested = frozenset().union(*evaluated)
    if found := trained & tested:
        raise InputError(
            f"{len(found):,} of the {len(tested):,} dev and test images of these data are training images of this run, "
            f"such as {min(found)}: train without them (remove_overlap, see docs/data.md)",
            config.parent,
        )


def _trained_images(data: Mapping[str, Any]) -> frozenset[str]:
    """The images that a run was trained on, by its configuration."""
    from datamodules.image_splits import keep_apart
    from datamodules.mixture import MixtureDataModule

    options = data.get("init_args") or {}
    is_mixture = data["class_path"] == f"{MixtureDataModule.__module__}.{MixtureDataModule.__name__}"
    found = {name: _build(part) for name, part in (options["parts"] if is_mixture else {"": data}).items()}
    parts = {name: part for name, part in found.items() if part is not None}
    keep_apart(parts)
    trained: frozenset[str] = frozenset()
    for part in parts.values():
        splits = part.image_splits()
        trained |= splits.train - part.excluded_images - (splits.evaluated if part.remove_overlap else frozenset())
    return trained


def _build(data: Mapping[str, Any]) -> SplitByImage | None:
    """A datamodule that can say which images it uses; None for one without images that others use."""
    from datamodules.base import PairsDataModule
    from datamodules.image_splits import SplitByImage

    module, _, name = data["class_path"].rpartition(".")
    kind = getattr(import_module(module), name)
    if not issubclass(kind, SplitByImage):
        return None
    common = inspect.signature(PairsDataModule).parameters
    options = {key: value for key, value in (data.get("init_args") or {}).items() if key not in common}
    if "language" in options:  # of several languages, which have the same images
        options["language"] = options["language"].split(",")[0].strip()
    built: SplitByImage = kind(**options)
    return built
