"""Files of public collections: passages as JSON lines, compressed or in parts, and where to find them in a folder."""

from __future__ import annotations

import json
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
from foundations.errors import InputError
from foundations.files import read_columns
from retrieval.trec import read_qrels


def jsonl_line(path: str | Path, identifier: str, texts: tuple[str, ...]) -> ParseLine:
    """The parser of lines that are JSON objects of a file (the path is for the error messages).

    It raises InputError for a line that is no JSON object, a field that lacks or is no string, or an id that is empty
    or holds white space. Texts may be empty.

    Args:
        path: the file.
        identifier: name of the field with the id.
        texts: names of the fields that make up the text, joined by a space.
    """
    return partial(_parse_json, Path(path), identifier, texts)


def _parse_json(path: Path, identifier: str, texts: tuple[str, ...], line: bytes, number: int) -> tuple[str, str]:
    expected = f"a JSON object with {', '.join((identifier, *texts))}"
    where = (path, number or None)
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"invalid UTF-8 ({error.reason}); expected {expected}", *where) from None
    except (json.JSONDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deep"
        raise InputError(f"this is no JSON ({reason}); expected {expected}", *where) from None
    if not isinstance(record, dict):
        raise InputError(f"found a JSON {type(record).__name__}, expected {expected}", *where)
    for name in (identifier, *texts):
        if not isinstance(record.get(name), str):
            found = f"the field {name!r} is no string" if name in record else f"the field {name!r} is missing"
            raise InputError(f"{found}; expected {expected}", *where)
    key = record[identifier]
    if not key or key.split() != [key]:
        raise InputError(f"the id {key!r} is empty or holds white space, which TREC files cannot", *where)
    return key, normalise(" ".join(record[name] for name in texts))


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
        """(id, text), part after part, read in one go."""
        return (item for store in self.stores for item in store.read())


def open_passages(paths: Sequence[Path], identifier: str, texts: tuple[str, ...]) -> Mapping[str, str]:
    """The passages of JSONL files, which stay on disk.

    A compressed file is unpacked into the cache folder once.

    Args:
        paths: the file, or the parts of it; .jsonl, .jsonl.gz or .jsonl.bz2.
        identifier: as in `jsonl_line`.
        texts: as in `jsonl_line`.

    Raises:
        InputError: a file that is missing, empty or damaged, or a line as in `jsonl_line`, with its number.
    """
    form = f"jsonl {identifier} {' '.join(texts)}"
    stores = [_open_store(path, jsonl_line(path, identifier, texts), form) for path in paths]
    return stores[0] if len(stores) == 1 else Parts(stores)


def _open_store(path: Path, parse: ParseLine, form: str) -> TextStore:
    """The texts of a file; what is wrong in an unpacked copy is told of the file that the user knows."""
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

    Raises:
        InputError: a malformed line of either, or a judged query that is not among the topics, with its line.
    """
    queries, judgments = read_texts(topics), read_qrels(qrels)
    if strangers := judgments.keys() - queries.keys():
        for line, columns in read_columns(qrels, "judgments"):
            if columns[0] in strangers:
                raise InputError(f"query {columns[0]!r} is not in {topics.name}", qrels, line)
    return Judged(str(qrels), queries, documents, judgments)


class Folder:
    """Files of a published collection, below a folder that the user has made by downloading them.

    Args:
        root: the folder.
        repositories: names of the folders into which the published repositories may have been copied in it.
        source: where the files can be had, for the error messages.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, root: str | Path, repositories: tuple[str, ...], source: str) -> None:
        self.root, self.source = Path(root).expanduser(), source
        if not self.root.is_dir():
            raise InputError(f"no such folder, expected one with the files of {source}", self.root)
        self._bases = [self.root, *(self.root / name for name in repositories)]

    def file(self, *names: str) -> Path:
        """The first of some paths at which there is a file, or its compressed form, here or in a repository.

        Raises:
            InputError: none is there.
        """
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
        """The files of the first pattern that fits some, sorted by the numbers in their names.

        Raises:
            InputError: there is none.
        """
        for pattern in patterns:
            for base in self._bases:
                if found := sorted(base.glob(pattern), key=_by_numbers):
                    return found
        raise InputError(f"no such file; it is part of {self.source}", self.root / patterns[0])


def _by_numbers(path: Path) -> list[Any]:
    name = "".join(character if character.isdigit() else " " for character in path.name)
    return [*map(int, name.split()), path.name]


def language_code(language: str, names: Mapping[str, str], collection: str) -> str:
    """The code of a language that was given as a code or by its English name.

    Args:
        language: what the user gave.
        names: code -> English name in lower case (words joined by ``_``).
        collection: for the error message.

    Raises:
        ValueError: it is neither.
    """
    given = language.strip().lower().replace(" ", "_")
    for code, name in names.items():
        if given in (code, name):
            return code
    raise ValueError(f"{collection} has no language {language!r}: choose from {', '.join(names)}")
