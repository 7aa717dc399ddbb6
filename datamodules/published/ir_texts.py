"""Documents, queries and judgments of the datasets that `ir_datasets` knows, by their ids.

Documents stay on disk, in the store that ir_datasets makes once from the official files; nothing here holds them
all in memory. Files are read from the folder of the environment variable IR_DATASETS_HOME (``~/.ir_datasets``) and
downloaded to it where they are missing. Processes that need the same files wait for each other.

Traps: ir_datasets reads IR_DATASETS_HOME when it is imported, so a change after the first dataset has no effect.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from gzip import BadGzipFile
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from datamodules.lines import LazyTexts
from datamodules.text import normalise
from foundations.cache import locked
from foundations.checks import nearest
from foundations.errors import InputError
from foundations.files import scan_lines
from retrieval.collection import Qrels
from retrieval.trec import read_qrels

_KINDS = {"docs": "documents", "queries": "queries", "qrels": "judgments", "docpairs": "training triples"}
"""What ir_datasets calls the parts of a dataset -> what we call them."""

_OTHER_FOLDER = "set IR_DATASETS_HOME to another"

_SMALL = 5_000_000
"""Bytes from which on ir_datasets looks for a file in its folder ``downloads`` before it downloads it."""


def load_dataset(identifier: str, needs: tuple[str, ...] = ("docs", "queries", "qrels")) -> Any:
    """A dataset of ir_datasets, such as ``wikiclir/sw``; no text is read and nothing is downloaded but small lists.

    InputError for an unknown id (with the nearest ones), or a dataset that lacks something it needs, of ``docs``,
    ``queries``, ``qrels``, ``docpairs``.
    """
    try:
        ir_datasets = import_module("ir_datasets")  # makes its folder
    except OSError as error:
        raise _no_folder(error) from error
    logging.getLogger("ir_datasets").addFilter(_is_news)
    try:
        dataset = ir_datasets.load(identifier)
    except KeyError:
        near = nearest(identifier, ir_datasets.registry)
        hint = f"the nearest ids are {', '.join(near)}" if near else "see https://ir-datasets.com for the ids"
        raise InputError(f"ir_datasets knows no {identifier!r}; {hint}") from None
    except Exception as error:
        raise input_error(error, identifier, "the list of its files") from error
    if lacking := [kind for kind in needs if not dataset.has(kind)]:
        below = [key for key in ir_datasets.registry if key.startswith(f"{identifier}/")]
        complete = [key for key in below if all(ir_datasets.load(key).has(kind) for kind in needs)]
        hint = f"; these have all: {', '.join(complete[:6])}" if complete else ""
        raise InputError(f"the dataset {identifier!r} of ir_datasets has no {' and no '.join(lacking)}{hint}")
    return dataset


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of ir_datasets tells a user anything: it reports every opening of a file."""
    return not record.getMessage().startswith("Opening ")


class IrDocuments(LazyTexts):
    """The texts of a dataset's documents by id, read from the store on disk when they are asked for.

    It can be used in worker processes: each opens the store for itself. The field is one of the documents, or several
    joined by a space (``title text``); None takes the text that the dataset itself makes of its fields. ValueError
    where there is no such field.
    """

    def __init__(self, dataset: Any, field: str | None = None) -> None:
        self.identifier: str = dataset.dataset_id()
        self.field = field
        self._dataset = dataset
        self._text = _text_of(dataset.docs_cls(), field, f"the documents of {self.identifier}")
        self._store: Any = None
        self._pid = 0

    def _open(self) -> Any:
        """The store, built before if need be; each process has one of its own, since an open file has one position."""
        if self._store is None:
            with _reading(self._dataset, "docs"):
                self._store = self._built()
        elif self._pid != os.getpid():  # forked: the parent built it
            self._store = self._dataset.docs_store()
        self._pid = os.getpid()
        return self._store

    def _built(self) -> Any:
        """The store, built under the lock even if it says that it is built: it says so before its index is written."""
        from ir_datasets.formats import TsvDocs

        handler = self._dataset.docs_handler()
        if isinstance(handler, TsvDocs):
            # Unpack the archive before the store is made inside its folder. Else a failed download leaves the folder
            # with an empty store, and ir_datasets takes it for unpacked ever after.
            handler.docs_path()
        store = self._dataset.docs_store()
        if hasattr(store, "lookup") and store.built() and not len(store.lookup.idx()):
            store.clear_cache()  # killed between the two
        if hasattr(store, "build"):
            store.build()
        return store

    def __getitem__(self, identifier: str) -> str:
        if not isinstance(identifier, str):
            raise KeyError(identifier)
        return self._text(self._open().get(identifier))

    def __contains__(self, identifier: object) -> bool:
        try:
            return isinstance(identifier, str) and self._open().get(identifier) is not None
        except KeyError:
            return False

    def __len__(self) -> int:
        store = self._open()
        count = store.count() if hasattr(store, "count") else self._dataset.docs_count()
        return int(count) if count is not None else sum(1 for _ in self.read())

    def item_at(self, row: int) -> tuple[str, str]:
        """(id, text) of a document by its position in the dataset's order, from 0."""
        store = self._open()
        documents = iter(store) if hasattr(store, "__iter__") else self._dataset.docs_iter()
        with _as_input_error(self._dataset, "docs"):
            document = next(iter(documents[row : row + 1]))
        return document.doc_id, self._text(document)

    def read(self) -> Iterator[tuple[str, str]]:
        """Ids and texts, read in one pass over the store."""
        store = self._open()
        with _as_input_error(self._dataset, "docs"):
            for document in store if hasattr(store, "__iter__") else self._dataset.docs_iter():
                yield document.doc_id, self._text(document)

    def __reduce__(self) -> tuple[Any, ...]:
        return _documents, (self.identifier, self.field)


def _documents(identifier: str, field: str | None) -> IrDocuments:
    """The documents of an id, for pickle."""
    return IrDocuments(load_dataset(identifier, ("docs",)), field)


def ir_queries(dataset: Any, field: str | None = None) -> dict[str, str]:
    """The texts of a dataset's queries by id, in its order; the field is as in `IrDocuments`.

    InputError for a query id that appears twice with other texts, or files that cannot be read or downloaded.
    """
    identifier: str = dataset.dataset_id()
    text = _text_of(dataset.queries_cls(), field, f"the queries of {identifier}")
    queries: dict[str, str] = {}
    with _reading(dataset, "queries"):
        for query in dataset.queries_iter():
            if queries.setdefault(query.query_id, text(query)) != text(query):
                raise InputError(f"{identifier}: the query id {query.query_id!r} appears twice with other texts")
    return queries


def ir_qrels(dataset: Any) -> Qrels:
    """The judgments of a dataset with their grades.

    A document that is judged twice for a query keeps its highest grade, with a warning where they differ.
    """
    qrels: Qrels = {}
    differing = 0
    with _reading(dataset, "qrels"):
        for judgment in dataset.qrels_iter():
            judged = qrels.setdefault(judgment.query_id, {})
            before = judged.setdefault(judgment.doc_id, judgment.relevance)
            if before != judgment.relevance:
                differing += 1
                judged[judgment.doc_id] = max(before, judgment.relevance)
    if differing:
        warnings.warn(
            f"{dataset.dataset_id()}: {differing} judgments repeat others with another grade; the highest is kept",
            stacklevel=2,
        )
    return qrels


def official_file(identifier: str, kind: str) -> Path:
    """The file that a part of a dataset is read from, downloaded first if it is missing.

    Args:
        identifier: see `load_dataset`; the part must be one file of lines.
        kind: ``docs``, ``queries``, ``qrels`` or ``docpairs``.

    Raises:
        InputError: an unknown id, or a file that cannot be downloaded.
    """
    dataset = load_dataset(identifier, (kind,))
    with _reading(dataset, kind):
        handler = getattr(dataset, f"{kind}_handler")()
        return Path(getattr(handler, f"{kind}_path")())


def _text_of(record_class: Any, field: str | None, whose: str) -> Callable[[Any], str]:
    """A function that makes the text of a record."""
    if field is None:
        return lambda record: normalise(record.default_text())
    names = field.split()
    if not names or (unknown := [name for name in names if name not in record_class._fields]):
        wrong = f"no field {unknown[0]!r}" if names else "no field without a name"
        raise ValueError(f"{whose} have {wrong}, expected one of {', '.join(record_class._fields)}")
    return lambda record: normalise(" ".join(str(getattr(record, name) or "") for name in names))


@contextmanager
def _reading(dataset: Any, kind: str) -> Iterator[None]:
    """Let one process download, unpack and read while the others wait: ir_datasets would do it in all of them."""
    from ir_datasets.util import home_path

    try:
        folder = home_path()
    except OSError as error:
        raise _no_folder(error) from error
    doing = f"prepares {dataset.dataset_id()}"
    with locked(folder / ".potstill.lock", doing, hint=_OTHER_FOLDER), _as_input_error(dataset, kind):
        yield


def _no_folder(error: OSError) -> InputError:
    reason, folder = error.strerror or str(error), os.environ.get("IR_DATASETS_HOME", "~/.ir_datasets")
    return InputError(f"ir_datasets cannot write to its folder: {reason}; {_OTHER_FOLDER}", folder)


@contextmanager
def _as_input_error(dataset: Any, kind: str) -> Iterator[None]:
    """Turn what ir_datasets raises over missing or malformed files into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise input_error(error, dataset.dataset_id(), f"its {_KINDS[kind]}", *_fault(dataset, kind, error)) from error


def input_error(
    error: Exception, identifier: str, what: str, files: Sequence[Path] = (), line: int | None = None
) -> InputError:
    """The InputError that says what to do about an error of ir_datasets.

    `what` is the part of the dataset that was read, e.g. ``its documents``; `files` is the file that could not be read,
    or several of which one could not be; none where they are not known.
    """
    if missing := _missing_file(error):
        source, target = missing
        return InputError(
            f"{identifier}: {what} are not there and could not be downloaded ({_reason(error)}); "
            f"{source} and save it as {target}, or set IR_DATASETS_HOME to a folder that has it"
        )
    stopped = "; if an earlier download was stopped, remove its folder and run again"
    hint = stopped if isinstance(error, FileNotFoundError) else ""
    if len(files) > 1:
        hint = f", in one of {', '.join(map(str, files))}{hint}"
    path = files[0] if len(files) == 1 else None
    return InputError(f"{identifier}: cannot read {what}: {_reason(error)}{hint}", path, line)


def _missing_file(error: Exception) -> tuple[str, Path] | None:
    """Where to get a file that could not be downloaded, and where ir_datasets looks for it; None for other errors."""
    from ir_datasets.util import DownloadConfig

    if isinstance(error, FileNotFoundError) and error.errno is None:  # a file that its owners hand out themselves
        return "get the file from its owners (see https://ir-datasets.com)", Path(error.args[0])
    urls = {
        unquote(url) for each in _mirror_errors(error) if (url := getattr(getattr(each, "request", None), "url", ""))
    }
    for name, files in DownloadConfig.contents().items():
        for file in files.values():
            checksum = file.get("expected_md5", "")
            if unquote(file.get("url", "")) in urls or (checksum and checksum in str(error)):
                is_small = file.get("size_hint", _SMALL) < _SMALL
                if checksum and not is_small and not file.get("skip_local"):
                    target = DownloadConfig.get_download_path() / checksum
                else:
                    target = DownloadConfig.get_home_path() / name / file.get("cache_path", "")
                return f"download {file['url']}", target
    return None


def _mirror_errors(error: Exception) -> list[Exception]:
    """The error, or those of all places from which ir_datasets tried to download a file."""
    mirrors = error.args[1] if len(error.args) == 2 and isinstance(error.args[1], list) else []
    return [each for _, each in mirrors] or [error]


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    if isinstance(error, Exception):
        error = _mirror_errors(error)[-1]
    if isinstance(error, OSError):  # requests wraps what happened several times
        while error.__context__ is not None and not getattr(error, "strerror", None):
            error = error.__context__
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = text if len(text) <= 160 else f"{text[:157]}..."
    return text or type(error).__name__


def _fault(dataset: Any, kind: str, error: Exception) -> tuple[list[Path], int | None]:
    """The files that may be malformed: the one at fault with its line, if it can be found, else all of the part."""
    if any(isinstance(each, OSError) and not isinstance(each, BadGzipFile) for each in _mirror_errors(error)):
        return [], None  # not malformed, but missing or not to be opened
    files: list[Path] = []
    with suppress(Exception):  # not every part of a dataset knows its path; the message then names no file
        paths = getattr(getattr(dataset, f"{kind}_handler")(), f"{kind}_path")()
        files = [Path(path) for path in (paths if isinstance(paths, list) else [paths])]
    for file in files:
        if line := _faulty_line(file, kind):
            return [file], line
    return files, None


def _faulty_line(path: Path, kind: str) -> int | None:
    """The first line of a file of judgments, or of JSON, that is none."""
    try:
        if kind == "qrels":
            read_qrels(path)
        elif ".jsonl" in path.suffixes:
            for number, _, line in scan_lines(path):
                try:
                    json.loads(line)
                except ValueError:
                    return number
    except InputError as error:
        return error.line
    return None
