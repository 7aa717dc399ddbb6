"""Files of texts by id: lines of ``id<TAB>text`` or JSON, plain or compressed, in memory or left on disk.

A TSV file may begin with a header line (``id<TAB>text``), which is passed over with a warning, and hold comments: lines
that begin with ``#`` and have no tab. A line of JSON is an object with the id (``_id``, ``docid``, ``id``, ...), the
text (``text``, ``contents``, ...) and perhaps a ``title``, which goes before the text; BEIR's ``corpus.jsonl`` and
``queries.jsonl`` are such files.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from datamodules.lines import TEXT_LINE, ParseLine, TextStore, tsv_line, unique
from datamodules.text import normalise
from foundations.cache import unpacked
from foundations.errors import InputError
from foundations.files import columns, json_line, require_file, scan_lines

_IN_MEMORY = 256 * 2**20
"""Size in bytes of the largest file that is read into memory by default."""

_IDS = ("_id", "docid", "id", "qid", "query_id", "doc_id", "docno", "pid")
_TEXTS = ("text", "contents", "query", "question", "passage", "document", "content", "body")
_OPTIONAL = "title"
_UNUSABLE_ID = re.compile(r"^$|[ \t\n\v\f\r]")


def stays_on_disk(path: Path, stream: bool | None) -> bool:
    """Whether a file is left on disk: what was chosen, or by default one above 256 MB; InputError for no file."""
    return require_file(path).stat().st_size > _IN_MEMORY if stream is None else stream


def read_rows(path: Path, expected: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """The two columns of each line of a TSV file, without white space around them.

    Args:
        path: the file; a byte order mark at its start and empty lines are passed over.
        expected: what a line holds, for the error messages, e.g. ``word<TAB>translation``.

    Yields:
        Line number from 1, and the columns.

    Raises:
        InputError: no file, an empty file, invalid UTF-8, another number of columns, or an empty column.
    """
    for number, _, line in scan_lines(path, expected):
        first, second = columns(line, 2, expected, path, number, filled=True)
        yield number, (first, second)


def read_texts(path: Path) -> dict[str, str]:
    """Normalised texts by id, all in memory.

    Raises:
        InputError: no file, an empty or damaged one; with the line, one that is malformed, or an id that appears twice
            or holds white space.
    """
    return dict(unique(_read(path), path))


def _read(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number, id and text of each line that is neither a header nor a comment."""
    parse, form = text_line(path)
    may_be_header = form == "tsv"
    for number, _, line in scan_lines(path, TEXT_LINE):
        if form == "tsv" and line.startswith(b"#") and b"\t" not in line:
            continue
        if may_be_header and _is_header(line):
            warnings.warn(f"{path}: line {number} is a header and is passed over", stacklevel=4)
        else:
            yield number, *parse(line, number)
        may_be_header = False


def _is_header(line: bytes) -> bool:
    """Whether a line of two columns names them."""
    cells = [cell.strip().lower().replace(b"-", b"_").decode("utf-8", "replace") for cell in line.split(b"\t")]
    return len(cells) == 2 and cells[0] in _IDS and cells[1] in (*_TEXTS, _OPTIONAL)


def open_texts(path: Path, parse: ParseLine | None = None, form: str = "") -> TextStore:
    """The texts of a file, see `TextStore.open`; a compressed one is unpacked into the cache folder once.

    Every line counts here: a header, of which a warning tells, is a text like the others, and a comment is malformed.

    Args:
        path: the file.
        parse: as for `TextStore.open`; None recognises what the lines hold.
        form: the name of that.

    Raises:
        InputError: as `TextStore.open`, or a damaged file; an error in the unpacked copy names the user's file.
    """
    if parse is None:
        parse, form = text_line(path)
        if form == "tsv" and _is_header(next(scan_lines(path))[2]):
            warnings.warn(f"{path}: line 1 is a header; it is read as a text, so remove it", stacklevel=2)
    copy = unpacked(path)
    try:
        return TextStore.open(copy, parse, form)
    except InputError as error:
        if copy == path or error.path is None or Path(error.path) not in (copy, copy.resolve()):
            raise
        message = str(error).split(": ", 1)[1]
        raise InputError(message, path, error.line) from None


def text_line(path: Path) -> tuple[ParseLine, str]:
    """The parser of the lines of a file, JSON or TSV by its first line, and the name of the format.

    Raises:
        InputError: no file, an empty or damaged one, or JSON without a field for the id or the text.
    """
    number, _, line = next(scan_lines(path, TEXT_LINE))
    if not line.lstrip().startswith(b"{"):
        return tsv_line(path), "tsv"
    expected = 'a JSON object such as {"_id": "d1", "title": "...", "text": "..."}'
    record = json_line(line, expected, path, number)
    identifier = next((name for name in _IDS if name in record), None)
    text = next((name for name in _TEXTS if name in record), None)
    if identifier is None or text is None:
        lacking = f"id ({', '.join(_IDS)})" if identifier is None else f"text ({', '.join(_TEXTS)})"
        raise InputError(f"no field for the {lacking}, expected {expected}", path, number)
    return json_text_line(path, identifier, (_OPTIONAL, text))


def json_text_line(path: Path, identifier: str, texts: tuple[str, ...]) -> tuple[ParseLine, str]:
    """The parser of lines that are JSON objects, and the name of the format.

    Args:
        path: the file, for the error messages.
        identifier: name of the field with the id.
        texts: names of the fields that make up the text, joined by a space. They may be empty; a ``title`` may be null
            or missing.
    """
    return partial(_parse_json, path, identifier, texts), f"jsonl {identifier} {' '.join(texts)}"


def check_id(identifier: str, expected: str, path: Path, number: int) -> None:
    """Raise InputError for an id that is empty or holds white space, as files of judgments and runs cannot hold it."""
    if _UNUSABLE_ID.search(identifier):
        raise InputError(f"the id {identifier!r} is empty or holds white space, expected {expected}", path, number)


def _parse_json(path: Path, identifier: str, texts: tuple[str, ...], line: bytes, number: int) -> tuple[str, str]:
    """Id and text of a line; see `json_text_line`."""
    expected = f"a JSON object with {', '.join((identifier, *texts))}"
    record = json_line(line, expected, path, number)
    if not isinstance(record, dict):
        raise InputError(f"found a JSON {type(record).__name__}, expected {expected}", path, number)
    if record.get(_OPTIONAL) is None:
        record[_OPTIONAL] = ""
    for field in (identifier, *texts):
        if not isinstance(record.get(field), str):
            problem = "is no string" if field in record else "is missing"
            raise InputError(f"the field {field!r} {problem}, expected {expected}", path, number)
    check_id(record[identifier], expected, path, number)
    return record[identifier], normalise(" ".join(record[field] for field in texts))
