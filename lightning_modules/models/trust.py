"""Run folders and checkpoints of other people: which code their files may name, so that opening one runs nothing else.

Names of classes are limited to this project, torch and Lightning, and models that come with code are refused.
`trusting`, which is ``--trust`` on the command line, allows everything.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from foundations.errors import InputError
from foundations.yaml_files import parse_yaml, read_yaml
from lightning_modules.names import moved

_CLASS = re.compile(r"(strategies|retrieval|datamodules|lightning_modules|torch|lightning)(\.\w+)*\.[A-Z]\w*")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_WORDS = ("name", "output")
"""Options that name a folder, whatever they look like."""
_OURS = ("foundations", "strategies", "retrieval", "datamodules", "lightning_modules", "studies", "potstill", "train",
         "evaluate", "export", "compare", "baseline", "search", "sweep", "report")  # fmt: skip
_INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
_LONGEST = 80
_BUILDER = "lightning.pytorch.cli.instantiate_module"
"""What Lightning imports to build a module from the hyper-parameters of a checkpoint."""

_trusts: ContextVar[bool] = ContextVar("trusts", default=False)
_guards: ContextVar[bool] = ContextVar("guards", default=False)


def trusting(trust: bool = True) -> AbstractContextManager[None]:
    """Within the block, run folders and checkpoints may name any code; what is opened there is built there."""
    return _set(_trusts, trust)


def guarding(guard: bool = True) -> AbstractContextManager[None]:
    """Within the block, `guarded` refuses what a run folder may not name."""
    return _set(_guards, guard)


@contextmanager
def _set(variable: ContextVar[bool], value: bool) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def guarded(value: Any) -> Any:
    """The value, which a parser read from a file or a text; see `guarding`.

    Raises:
        InputError: as `refuse_foreign`.
    """
    if _guards.get():
        refuse_foreign(value)
    return value


def read_run_config(folder: str | Path, *keys: str) -> Any:
    """The configuration of a run folder, with today's class paths, or the part of it that will be built.

    Args:
        folder: the run folder.
        *keys: those that lead to the part.

    Raises:
        InputError: no ``config.yaml`` is there, it lacks the part, or as `read_yaml` and `refuse_foreign`.
    """
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise InputError("no config.yaml there, expected the folder of a run", folder)
    part: Any = moved(read_yaml(path))
    for key in keys:
        if not isinstance(part, dict) or key not in part:
            raise InputError(f"has no {'.'.join(keys)}, expected the config.yaml of a run", path)
        part = part[key]
    refuse_foreign(part, path)
    return part


def refuse_foreign(value: Any, path: str | Path | None = None) -> None:
    """Look whether a configuration names nothing but classes of this project, torch and Lightning.

    Args:
        value: the configuration, or a part of it.
        path: its file, for the error message.

    Raises:
        InputError: it names others, or lets a model run its own code (``trust_remote_code``), and this is not within
            `trusting`.
    """
    names = [] if _trusts.get() else list(dict.fromkeys(repr(name[:_LONGEST])[1:-1] for name in foreign(value)))
    if names:
        raise InputError(
            f"names code from outside of this project, torch and Lightning: {', '.join(names)}; "
            "if you trust who wrote it, add --trust",
            path,
        )


def classes_of(hyper_parameters: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Those hyper-parameters of a checkpoint that name classes, with today's class paths.

    Args:
        hyper_parameters: as Lightning saves them.
        path: the checkpoint, for the error message.

    Raises:
        InputError: as `refuse_foreign`.
    """
    saved = dict(hyper_parameters)
    if (builder := saved.pop("_instantiator", _BUILDER)) != _BUILDER:
        saved["class_path"] = builder
    refuse_foreign(saved, path)
    return {name: moved(each) for name, each in saved.items() if isinstance(each, dict)}


def foreign(value: Any) -> Iterator[str]:
    """What of a configuration would import or run code from elsewhere, without importing anything.

    A class may also stand where a text does: as a name alone, or within YAML or JSON.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            last = str(key).rpartition(".")[2]
            if last == "class_path" and each is not None:
                yield from () if _CLASS.fullmatch(str(each)) else (str(each),)
            elif last == "trust_remote_code":
                yield from () if each in (False, None) else (f"{key}: {each}",)
            elif key not in _WORDS:
                yield from foreign(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from foreign(each)
    elif isinstance(value, str):
        if _DOTTED.fullmatch(value):
            yield from (value,) if not _CLASS.fullmatch(value) and _is_code(value) else ()
        elif ":" in value:
            try:
                inner = parse_yaml(value)
            except InputError:
                return  # a text
            yield from foreign(inner) if isinstance(inner, dict | list) else ()


def _is_code(name: str) -> bool:
    """Whether a dotted name is that of something to import, rather than of a file such as ``test.queries.tsv``.

    Nothing is imported: it is if that would run a file that is neither ours nor installed, or if the file that Python
    would look into has the next part of the name.
    """
    parts, folders, text = name.split("."), None, ""
    for number, part in enumerate(parts):
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), folders)
        if spec is None:
            return re.search(rf"\b{re.escape(part)}\b", text) is not None
        if spec.origin is not None:
            file = Path(spec.origin).resolve()
            if parts[0] not in _OURS and not any(file.is_relative_to(folder) for folder in _INSTALLED):
                return True
            text = file.read_text(encoding="utf-8", errors="replace")
        folders = spec.submodule_search_locations or []
    return True
