"""Documents, queries and judgments of the datasets that `ir_datasets` knows, by their ids.

Documents stay on disk, in the store that ir_datasets makes once from the official files; nothing here holds them
all in memory. Files are read from the folder of the environment variable IR_DATASETS_HOME (``~/.ir_datasets``) and
downloaded to it where they are missing. Processes that need the same files wait for each other.

Traps: ir_datasets reads IR_DATASETS_HOME when it is imported, so a change after the first dataset has no effect.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from datamodules.lines import LazyTexts
from datamodules.text import normalise
from foundations.errors import InputError
from retrieval.collection import Qrels

_PATIENCE = 2.0
"""Seconds to wait for another process before a message says so."""

_KINDS = ("docs", "queries", "qrels")


def load_dataset(identifier: str, needs: tuple[str, ...] = _KINDS) -> Any:
    """A dataset of ir_datasets; no text is read and nothing is downloaded but small lists.

    Args:
        identifier: such as ``wikiclir/sw`` or ``neuclir/1/fa/hc4-filtered``.
        needs: what it must have, of ``docs``, ``queries``, ``qrels``.

    Raises:
        InputError: an unknown id (with the nearest ones), or a dataset that lacks something in needs.
    """
    ir_datasets = _library()
    logging.getLogger("ir_datasets").addFilter(_is_news)
    try:
        with _as_input_error(identifier, "the list of its files", but=KeyError):
            dataset = ir_datasets.load(identifier)
    except KeyError:
        near = difflib.get_close_matches(identifier, list(ir_datasets.registry), n=3, cutoff=0.5)
        raise InputError(
            f"ir_datasets knows no {identifier!r}"
            + (f"; the nearest ids are {', '.join(near)}" if near else "; see https://ir-datasets.com for the ids")
        ) from None
    if lacking := [kind for kind in needs if not dataset.has(kind)]:
        below = [key for key in ir_datasets.registry if key.startswith(f"{identifier}/")]
        complete = [key for key in below if all(ir_datasets.load(key).has(kind) for kind in needs)]
        hint = f"; these have all: {', '.join(complete[:6])}" if complete else ""
        raise InputError(f"the dataset {identifier!r} of ir_datasets has no {' and no '.join(lacking)}{hint}")
    return dataset


def _library() -> Any:
    """The package, which makes its folder when it is imported."""
    try:
        return import_module("ir_datasets")
    except OSError as error:
        raise _no_folder(error) from error


def _no_folder(error: OSError) -> InputError:
    reason = error.strerror or str(error)
    home = os.environ.get("IR_DATASETS_HOME", "~/.ir_datasets")
    return InputError(f"ir_datasets cannot write to its folder: {reason}; set IR_DATASETS_HOME to another", home)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of ir_datasets tells a user anything: it reports every opening of a file."""
    return not record.getMessage().startswith("Opening ")


class IrDocuments(LazyTexts):
    """The texts of a dataset's documents by id, read from the store on disk when they are asked for.

    It can be used in worker processes: each opens the store for itself.

    Args:
        dataset: see `load_dataset`.
        field: name of a field, or of several joined by a space (``title text``); None for the text that the dataset
            itself makes of its fields.

    Raises:
        ValueError: there is no such field.
    """

    def __init__(self, dataset: Any, field: str | None = None) -> None:
        self.identifier: str = dataset.dataset_id()
        self.field = field
        self._dataset = dataset
        self._text = _text_of(dataset.docs_cls(), field, f"the documents of {self.identifier}")
        self._store: Any = None
        self._pid = 0

    def _open(self) -> Any:
        """The store, built before if need be; one of its own for each process, since an open file has one place."""
        if self._store is None or self._pid != os.getpid():
            with _as_input_error(self.identifier, "its documents"):
                # A forked process has it from its parent, so it is there.
                self._store = self._built() if self._store is None else self._dataset.docs_store()
            self._pid = os.getpid()
        return self._store

    def _built(self) -> Any:
        """The store, which this process builds, or another one while this one waits.

        The lock is taken even if the store says that it is built: it says so before its index is written.
        """
        with _one_at_a_time(self.identifier):
            _unpack_first(self._dataset)
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
        """(id, text) of a document by its place in the dataset's order, from 0."""
        store = self._open()
        documents = iter(store) if hasattr(store, "__iter__") else self._dataset.docs_iter()
        with _as_input_error(self.identifier, "its documents"):
            document = next(iter(documents[row : row + 1]))
        return document.doc_id, self._text(document)

    def read(self) -> Iterator[tuple[str, str]]:
        """Ids and texts, read in one pass over the store."""
        store = self._open()
        with _as_input_error(self.identifier, "its documents"):
            for document in store if hasattr(store, "__iter__") else self._dataset.docs_iter():
                yield document.doc_id, self._text(document)

    def __reduce__(self) -> tuple[Any, ...]:
        return _documents, (self.identifier, self.field)


def _documents(identifier: str, field: str | None) -> IrDocuments:
    """The documents of an id, for pickle."""
    return IrDocuments(load_dataset(identifier, ("docs",)), field)


def ir_queries(dataset: Any, field: str | None = None) -> dict[str, str]:
    """The texts of a dataset's queries by id, in its order.

    Args:
        dataset: see `load_dataset`.
        field: as in `IrDocuments`.

    Raises:
        InputError: a query id that appears twice with other texts, or files that cannot be read or downloaded.
        ValueError: there is no such field.
    """
    identifier: str = dataset.dataset_id()
    text = _text_of(dataset.queries_cls(), field, f"the queries of {identifier}")
    queries: dict[str, str] = {}
    with _one_at_a_time(identifier), _as_input_error(identifier, "its queries"):
        for query in dataset.queries_iter():
            if queries.setdefault(query.query_id, text(query)) != text(query):
                raise InputError(f"{identifier}: the query id {query.query_id!r} appears twice with other texts")
    return queries


def ir_qrels(dataset: Any) -> Qrels:
    """The judgments of a dataset with their grades.

    A document that is judged twice for a query keeps its highest grade, with a warning where they differ.

    Args:
        dataset: see `load_dataset`.

    Raises:
        InputError: files that cannot be read or downloaded.
    """
    identifier: str = dataset.dataset_id()
    qrels: Qrels = {}
    differing = 0
    with _one_at_a_time(identifier), _as_input_error(identifier, "its judgments"):
        for judgment in dataset.qrels_iter():
            judged = qrels.setdefault(judgment.query_id, {})
            before = judged.setdefault(judgment.doc_id, judgment.relevance)
            if before != judgment.relevance:
                differing += 1
                judged[judgment.doc_id] = max(before, judgment.relevance)
    if differing:
        warnings.warn(
            f"{identifier}: {differing} judgments repeat others with another grade; the highest is kept", stacklevel=2
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
    with _one_at_a_time(identifier), _as_input_error(identifier, f"its {kind}"):
        handler = getattr(dataset, f"{kind}_handler")()
        return Path(getattr(handler, f"{kind}_path")())


def _text_of(kind: Any, field: str | None, whose: str) -> Callable[[Any], str]:
    """A function that makes the text of a record."""
    if field is None:
        return lambda record: normalise(record.default_text())
    names = field.split()
    if not names or (unknown := [name for name in names if name not in kind._fields]):
        wrong = f"no field {unknown[0]!r}" if names else "no field without a name"
        raise ValueError(f"{whose} have {wrong}: choose from {', '.join(kind._fields)}")
    return lambda record: normalise(" ".join(str(getattr(record, name)) for name in names))


def _unpack_first(dataset: Any) -> None:
    """Have an archive unpacked before the store is made inside its folder.

    Else a failed download leaves the folder with an empty store, and ir_datasets takes it for unpacked ever after.
    """
    from ir_datasets.util import RelativePath

    source = getattr(dataset.docs_handler(), "_dlc", None)
    if isinstance(source, RelativePath):
        source.path()


@contextmanager
def _as_input_error(identifier: str, what: str, but: type[Exception] = InputError) -> Iterator[None]:
    """Turn what ir_datasets raises over missing or malformed files into an InputError, but one kind."""
    try:
        yield
    except (InputError, but):
        raise
    except Exception as error:
        raise input_error(error, identifier, what) from error


@contextmanager
def _one_at_a_time(identifier: str) -> Iterator[None]:
    """Let one process download and build while the others wait: ir_datasets itself would do it in all of them."""
    from ir_datasets.util import home_path

    try:
        lock = FileLock(home_path() / ".potstill.lock", is_singleton=True)
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        Console(stderr=True, highlight=False).print(f"waiting for another process that prepares {identifier}")
        lock.acquire()
    except OSError as error:
        raise _no_folder(error) from error
    try:
        yield
    finally:
        lock.release()


def input_error(error: BaseException, identifier: str, what: str) -> InputError:
    """The InputError that says what to do about an error of ir_datasets.

    Args:
        error: what was raised while files were fetched or read.
        identifier: of the dataset.
        what: what was wanted, e.g. ``its documents``.
    """
    if download := _failed_download(error):
        return _missing(error, download, identifier, what)
    path, line = _place(error)
    stopped = "; if an earlier download was stopped, remove its folder and run again"
    hint = stopped if isinstance(error, FileNotFoundError) else ""
    return InputError(f"{identifier}: cannot read {what}: {_reason(error)}{hint}", path, line)


def _missing(error: BaseException, download: Any, identifier: str, what: str) -> InputError:
    """Say which file to fetch, and where ir_datasets expects it."""
    urls = [mirror.url for mirror in download.mirrors if hasattr(mirror, "url")]
    local = [mirror.path(force=False) for mirror in download.mirrors if not hasattr(mirror, "url")]
    place = local[0] if local else download.path(force=False)
    fetch = f"download {urls[0]}" if urls else "get the file from its owners (see https://ir-datasets.com)"
    return InputError(
        f"{identifier}: {what} are not there and could not be downloaded ({_reason(error)}); "
        f"{fetch} and save it as {place}, or set IR_DATASETS_HOME to a folder that has it"
    )


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    if len(error.args) == 2 and isinstance(error.args[1], list) and error.args[1]:  # the mirrors, with their errors
        error = error.args[1][-1][-1]
    if isinstance(error, OSError):  # requests wraps what happened several times
        while error.__context__ is not None and not getattr(error, "strerror", None):
            error = error.__context__
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = text if len(text) <= 160 else f"{text[:157]}..."
    return text or type(error).__name__


def _frames(error: BaseException) -> Iterator[FrameType]:
    """The frames of ir_datasets in which an error passed, the innermost first."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("ir_datasets."):
            frames.append(trace.tb_frame)
        trace = trace.tb_next
    return reversed(frames)


def _failed_download(error: BaseException) -> Any:
    """The download that failed, if the error is one."""
    from ir_datasets.util import Download

    for frame in _frames(error):
        if isinstance(found := frame.f_locals.get("self"), Download) and frame.f_code.co_name == "path":
            return found
    return None


def _place(error: BaseException) -> tuple[Path | None, int | None]:
    """The file, and the line in it, that could not be read."""
    line: Any = None
    for frame in _frames(error):
        line = line if line is not None else frame.f_locals.get("line")
        owner = frame.f_locals.get("self")
        sources: list[Any] = [frame.f_locals.get("dlc")]
        sources += [getattr(owner, name, None) for name in ("dlc", "_dlc", "_dlcs")]
        for source in sources:
            if hasattr(source, "stream") and hasattr(source, "path"):
                try:
                    path = Path(source.path(force=False))
                except Exception:  # not every source has one; the error is told without it as well
                    continue
                return path, _number_of(source, line)
    return None, None


def _number_of(source: Any, line: Any) -> int | None:
    """The number of the first line of a file that is this text, or this JSON value."""
    if line is None:
        return None
    text = (line.encode() if isinstance(line, str) else line if isinstance(line, bytes) else b"").rstrip(b"\r\n")
    try:
        with source.stream() as stream:
            for number, found in enumerate(stream, start=1):
                if found.rstrip(b"\r\n") == text or (not isinstance(line, bytes) and _is_json_of(found, line)):
                    return number
    except (OSError, EOFError, zlib.error):
        pass
    return None


def _is_json_of(text: bytes, value: Any) -> bool:
    try:
        return bool(_without_id(json.loads(text)) == _without_id(value))
    except ValueError:
        return False


def _without_id(record: Any) -> Any:
    """A JSON value without the keys that ir_datasets renames while it reads."""
    return {k: v for k, v in record.items() if k not in ("id", "doc_id")} if isinstance(record, dict) else record
