"""Files of public collections: passages as JSON lines, compressed or in parts, and where to find them in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.lines import LazyTexts, ParseLine, TextStore
from datamodules.published.judged import Judged
from datamodules.text import normalise
from datamodules.tsv import read_texts
from foundations.cache import unpacked
from foundations.checks import nearest
from foundations.errors import InputError
from foundations.files import json_line, read_columns
from retrieval.trec import read_qrels

_UNUSABLE_ID = re.compile(r"^$|[ \t\n\v\f\r]")


def check_id(identifier: str, expected: str, path: Path, number: int) -> None:
    """Raise InputError for an id that is empty or holds white space, as files of judgments and runs cannot hold it."""
    if _UNUSABLE_ID.search(identifier):
        raise InputError(f"the id {identifier!r} is empty or holds white space, expected {expected}", path, number)


def _parse_json(path: Path, identifier: str, texts: tuple[str, ...], line: bytes, number: int) -> tuple[str, str]:
    """Id and text of a line that is a JSON object; see `open_passages`."""
    expected = f"a JSON object with {', '.join((identifier, *texts))}"
    record = json_line(line, expected, path, number)
    if not isinstance(record, dict):
        raise InputError(f"found a JSON {type(record).__name__}, expected {expected}", path, number)
    for name in (identifier, *texts):
        if not isinstance(record.get(name), str):
            problem = "is no string" if name in record else "is missing"
            raise InputError(f"the field {name!r} {problem}, expected {expected}", path, number)
    check_id(record[identifier], expected, path, number)
    return record[identifier], normalise(" ".join(record[name] for name in texts))


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
        paths: the file, or the parts of it; .jsonl, or compressed (see `open_texts`).
        identifier: name of the field with the id.
        texts: names of the fields that make up the text, joined by a space. Texts may be empty.

    Raises:
        InputError: a file that is missing, empty or damaged; with its number, a line that is no JSON object, lacks a
            field or has one that is no string, or whose id is empty, holds white space or is there twice.
    """
    form = f"jsonl {identifier} {' '.join(texts)}"
    stores = [open_texts(path, partial(_parse_json, path, identifier, texts), form) for path in paths]
    return stores[0] if len(stores) == 1 else Parts(stores)


def open_texts(path: Path, parse: ParseLine, form: str) -> TextStore:
    """The texts of a file, see `TextStore.open`; a compressed one (.gz, .bz2) is unpacked into the cache folder once.

    An error in the unpacked copy names the file that the user gave.
    """
    copy = unpacked(path)
    try:
        return TextStore.open(copy, parse, form)
    except InputError as error:
        if copy == path or error.path is None or Path(error.path) not in (copy, copy.resolve()):
            raise
        message = str(error).split(": ", 1)[1]
        raise InputError(message, path, error.line) from None


def judged_files(topics: Path, qrels: Path, documents: Mapping[str, str]) -> Judged:
    """A split from a file of topics (``id<TAB>query``) and one of TREC judgments.

    InputError, with the line, for a malformed line of either, or a judged query that is not among the topics.
    """
    queries, judgments = read_texts(topics), read_qrels(qrels)
    if unknown := judgments.keys() - queries.keys():
        for line, columns in read_columns(qrels, "judgments"):
            if columns[0] in unknown:
                raise InputError(f"query {columns[0]!r} is not in {topics.name}", qrels, line)
    return Judged(str(qrels), queries, documents, judgments)


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
                for path in (base / name, base / f"{name}.gz", base / f"{name}.bz2"):
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
