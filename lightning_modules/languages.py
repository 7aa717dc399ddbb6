"""A comma list of languages on the command line: ``--data.language sw,so,mr`` is one datamodule for each of them."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

from jsonargparse import Namespace

from datamodules.base import PairsDataModule
from retrieval.errors import InputError

MIXTURE = "datamodules.mixture.MixtureDataModule"
_MOST_IN_A_NAME = 8
_OF_THE_PARTS = ("limit_pairs",)


def expand_languages(data: Namespace) -> Namespace:
    """The configuration of a datamodule, or of a mixture where it names several languages.

    Every part has all options but the language; those of `PairsDataModule` are the mixture's as well, except
    limit_pairs, which holds for each part.

    Args:
        data: ``class_path`` and ``init_args``.

    Returns:
        The same configuration, or a new one.

    Raises:
        InputError: the list of languages is empty, has an empty place, or names a language twice.
    """
    options = data.get("init_args") or _namespace()
    language = options.get("language")
    if not isinstance(language, str) or data.class_path == MIXTURE:
        return data
    if "," not in language:
        if options.get("temperature", 1) != 1:
            warnings.warn("data.temperature has no effect: there is one language only", stacklevel=2)
        return data
    names = language_names(language)
    common = set(inspect.signature(PairsDataModule).parameters).difference(_OF_THE_PARTS)
    shared: dict[str, Any] = {name: value for name, value in vars(options).items() if name in common}
    parts = {
        re.sub(r"[^\w.+-]", "_", name): _namespace(
            class_path=data.class_path, init_args=_namespace(**vars(options) | {"language": name, "temperature": 1.0})
        )
        for name in names
    }
    return _namespace(class_path=MIXTURE, init_args=_namespace(parts=parts, **shared))


def language_names(languages: str) -> list[str]:
    """The languages in ``sw,so,mr``.

    Raises:
        InputError: the list is empty, has an empty place, or names a language twice.
    """
    found = [name.strip() for name in languages.split(",")]
    if not any(found):
        raise InputError("data.language is an empty list, expected languages such as sw,so,mr")
    if "" in found:
        raise InputError(f"data.language {languages!r} has an empty place, expected languages such as sw,so,mr")
    folded = [name.casefold() for name in found]
    for number, name in enumerate(folded):
        if name in folded[:number]:
            raise InputError(f"data.language names {found[number]!r} twice")
    return found


def in_folder_name(data: Namespace) -> str | None:
    """The languages of a datamodule's configuration as a part of a folder's name, e.g. ``sw+so+mr``.

    A dataset that is chosen by an id has the id there, e.g. ``neuclir-1-fa-hc4-filtered``; None without either.
    """
    options = data.get("init_args") or _namespace()
    language: str | None = options.get("language")
    if language is None and isinstance(identifier := options.get("id"), str):
        return re.sub(r"[^\w.-]+", "-", identifier)
    if data.class_path == MIXTURE:
        names = list(options.get("parts") or ())
    elif isinstance(language, str) and "," in language:
        names = [re.sub(r"[^\w.-]", "_", name) for name in language_names(language)]
    else:
        return language
    if len(names) > _MOST_IN_A_NAME:
        names = [*names[: _MOST_IN_A_NAME - 1], f"{len(names) - _MOST_IN_A_NAME + 1}more"]
    return "+".join(names) or None


def _namespace(**values: Any) -> Namespace:
    return Namespace(**values)  # type: ignore[no-untyped-call]
