"""Files of public collections: passages as JSON lines, compressed or in parts, and where to find them in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from datamodules.lines import LazyTexts, TextStore
from datamodules.published.judged import Judged
from datamodules.text_files import json_text_line, open_texts, read_texts
from foundations.checks import nearest
from foundations.errors import InputError
from foundations.files import PACKED_SUFFIXES
from retrieval.trec import read_qrels


class Parts(LazyTexts):
    """Texts of several stores, such as the parts of a corpus, in their order; an id is in one of them."""

    def __init__(self, stores: Sequence[TextStore]) -> None:
        self.stores = stores

    def __getitem__(self, key: str) -> str:
        for store in self.stores:
            with suppress(KeyError):
                return store[key]
        raise KeyError(key)

    def __len__(self) -> int:
        return sum(map(len, self.stores))

    def item_at(self, row: int) -> tuple[str, str]:
        """(id, text) of a row, counted over all parts, from 0."""
        for store in self.stores:
            if row < len(store):
                return store.item_at(row)
            row -= len(store)
        raise IndexError(row)

    def read(self) -> Iterator[tuple[str, str]]:
        """(id, text), part after part."""
        for store in self.stores:
            yield from store.read()


def open_passages(paths: Sequence[Path], identifier: str, texts: tuple[str, ...]) -> Mapping[str, str]:
    """The passages of JSONL files, which stay on disk.

    Args:
        paths: the file, or the parts of it, plain or compressed.
        identifier: name of the field with the id.
        texts: names of the fields that make up the text, joined by a space; see `json_text_line`.

    Raises:
        InputError: a file that is missing, empty or damaged; with its number, a line that is no JSON object, lacks a
            field or has one that is no string, or whose id is empty, holds white space or is there twice.
    """
    stores = [open_texts(path, *json_text_line(path, identifier, texts)) for path in paths]
    return stores[0] if len(stores) == 1 else Parts(stores)


def judged_files(topics: Path, qrels: Path, documents: Mapping[str, str]) -> Judged:
    """A split from a file of topics (see `read_texts`) and one of TREC judgments; InputError for a malformed line."""
    return Judged(str(qrels), read_texts(topics), documents, read_qrels(qrels))


class Folder:
    """Files of a published collection, below an existing folder that the user has made by downloading them.

    The published repositories may have been copied into folders of their names in it; `source` says where the files can
    be had, for the error messages.
    """

    def __init__(self, root: str | Path, repositories: tuple[str, ...], source: str) -> None:
        self.root, self.source = Path(root).expanduser(), source
        if not self.root.is_dir():
            raise InputError(f"no such folder, expected one with the files of {source}", self.root)
        self._bases = [self.root, *(self.root / name for name in repositories)]

    def file(self, *names: str) -> Path:
        """The first of some paths with a file, or its compressed form, here or in a repository; else InputError."""
        for name in names:
            for base in self._bases:
                for path in (base / f"{name}{suffix}" for suffix in ("", *PACKED_SUFFIXES)):
                    if path.is_file():
                        return path
        raise InputError(f"no such file; it is part of {self.source}", self.root / names[0])

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return any((base / name).is_file() for base in self._bases)

    def parts(self, *patterns: str) -> list[Path]:
        """The files of the first pattern that fits some, sorted by the numbers in their names; else InputError."""
        for pattern in patterns:
            for base in self._bases:
                if paths := sorted(base.glob(pattern), key=_by_numbers):
                    return paths
        raise InputError(f"no such file; it is part of {self.source}", self.root / patterns[0])


def _by_numbers(path: Path) -> list[Any]:
    return [*map(int, re.findall(r"\d+", path.name)), path.name]


def language_code(language: str, names: Mapping[str, str], collection: str, hint: str = "") -> str:
    """The code of a language.

    Args:
        language: its code, or its English name, in any case.
        names: code -> English name in lower case, words joined by ``_``.
        collection: for the error message.
        hint: put after the language in the error message.

    Raises:
        ValueError: it is neither; with all codes, and the nearest.
    """
    codes = {_key(name): code for code, name in names.items()} | {_key(code): code for code in names}
    if (code := codes.get(_key(language))) is None:
        question = "".join(f", did you mean {codes[near]!r}?" for near in nearest(_key(language), codes, 1, cutoff=0.6))
        choices = ", ".join(names)
        raise ValueError(f"{collection} has no language {language!r}{hint}, expected one of {choices}{question}")
    return code


def _key(language: str) -> str:
    return re.sub(r"[ _]", "-", language.strip().casefold())
