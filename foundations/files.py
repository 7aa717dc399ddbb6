"""Reading lines with file:line errors, and writing files and folders whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from foundations.errors import InputError
from foundations.progress import delayed_progress

UNFINISHED = ".unfinished-"
"""How the names of folders begin in which something is being made."""

PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
"""How the names of compressed files end."""

_OPENERS: dict[bytes, Any] = {rb"\x1f\x8b": gzip.open, rb"BZh[1-9]1AY&SY": bz2.open, rb"\xfd7zXZ\x00": lzma.open}
"""How the content of a compressed file begins -> what opens it."""
_LONGEST_START = 16

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LINES_PER_UPDATE = 8192


def require_file(path: str | Path) -> Path:
    """The path, if a file is there.

    Raises:
        InputError: nothing is there, or a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("this is a folder, expected a file", path)
    if not path.is_file():
        raise InputError("no such file", path)
    return path


@contextmanager
def open_content(path: str | Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A file to read, unpacked where its content says that it is compressed (gzip, bz2, xz), also under a plain name.

    Yields:
        The content, and the file itself, whose position tells how much of it was read.

    Raises:
        InputError: no file, or one that cannot be read or is damaged.
    """
    path = require_file(path)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path) from error
    with raw:
        opener = _opener(raw)
        if opener is None and path.suffix in PACKED_SUFFIXES:
            raise InputError("the file is damaged or not compressed as its name says", path)
        try:
            yield (raw if opener is None else opener(raw)), raw
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            # None of the formats gives an errno where the content is wrong.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(f"the file is damaged or not compressed as its name says: {error}", path) from error


def is_packed(path: str | Path) -> bool:
    """Whether the content of a file is compressed (gzip, bz2, xz)."""
    with require_file(path).open("rb") as file:
        return _opener(file) is not None


def _opener(file: IO[bytes]) -> Any:
    """What unpacks an open file; None where it is plain. The file is at its beginning, before and after."""
    start = file.read(_LONGEST_START)
    file.seek(0)
    return next((opener for first, opener in _OPENERS.items() if re.match(first, start)), None)


def scan_lines(path: str | Path, expected: str = "text", blank: bool = False) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file, plain or compressed, with a progress bar where that takes long.

    Args:
        path: the file.
        expected: what a line holds, for the error message.
        blank: give lines without text as well, as ``b""``, instead of passing them over.

    Yields:
        Line number from 1, offset in bytes (of the content), and the line without its end (and without a byte order
        mark).

    Raises:
        InputError: no file, one that is damaged or in UTF-16, or no line with text.
    """
    path = Path(path)
    empty, offset, shown = True, 0, 0
    with open_content(path) as (file, raw), delayed_progress(f"read {path.name}", path.stat().st_size) as advance:
        for number, content in enumerate(file, start=1):
            if number == 1:
                _refuse_utf16(content, path)
            line = clean_line(content, number)
            if line or blank:
                empty = empty and not line
                yield number, offset, line
            offset += len(content)
            if number % _LINES_PER_UPDATE == 0:
                advance(raw.tell() - shown)
                shown = raw.tell()
    if empty:
        raise InputError(f"the file is empty, expected lines of {expected}", path)


def _refuse_utf16(start: bytes, path: Path) -> None:
    """Raise InputError where the first line of a file is in UTF-16, with or without a byte order mark."""
    if start.startswith(_UTF16_MARKS) or b"\0" in start:
        what = "this is UTF-16" if start.startswith(_UTF16_MARKS) else "this looks like UTF-16 (it holds zero bytes)"
        raise InputError(f"{what}, expected UTF-8: convert it, e.g. with iconv -f UTF-16 -t UTF-8", path)


def clean_line(raw: bytes, number: int) -> bytes:
    """A line without its end and, if it is line 1, a byte order mark; empty where only white space is left."""
    line = (raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw).rstrip(b"\r\n")
    return b"" if line.isspace() else line


def decode(line: bytes, expected: str, path: str | Path, number: int = 0) -> str:
    """The text of a line in UTF-8.

    Args:
        line: its bytes.
        expected: what it should hold, for the error message.
        path: the file, for the error message.
        number: of the line from 1, for the error message; 0 where it is not known.

    Raises:
        InputError: invalid UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"invalid UTF-8 ({error.reason}), expected {expected}", path, number) from None


def columns(
    line: bytes,
    count: int | None,
    expected: str,
    path: str | Path,
    number: int = 0,
    *,
    separator: bytes | None = b"\t",
    filled: bool = False,
) -> list[str]:
    """The columns of a line.

    Args:
        line: its bytes, without its end.
        count: how many columns it must have; None for any number.
        expected: what it should hold, for the error messages, e.g. ``id<TAB>text``.
        path: the file, for the error messages.
        number: of the line from 1, for the error messages; 0 where it is not known.
        separator: what stands between columns; None for any ASCII white space (`str.split` would also split at the
            no-break spaces that an id may hold).
        filled: strip white space around each column, and refuse one that is empty then.

    Raises:
        InputError: invalid UTF-8, another number of columns, or an empty one that must be filled.
    """
    found = [decode(column, expected, path, number) for column in line.split(separator)]
    if count is not None:
        check_width(found, count, expected, path, number)
    if filled:
        found = [column.strip() for column in found]
        if "" in found:
            position = found.index("")
            which = ("first", "second", "third")[position] if position < 3 else f"{position + 1}th"
            raise InputError(f"the {which} column is empty, expected {expected}", path, number)
    return found


def check_width(found: list[str], count: int, expected: str, path: str | Path, number: int = 0) -> None:
    """Raise InputError where a line has another number of columns than `count`; the arguments are as for `columns`."""
    if len(found) != count:
        plural = "" if len(found) == 1 else "s"
        raise InputError(f"found {len(found)} column{plural}, expected {count}: {expected}", path, number)


def read_columns(
    path: str | Path, expected: str, count: int | None = None, separator: bytes | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The columns of each line of a UTF-8 file; empty lines are passed over.

    Args:
        path: the file; a byte order mark at its start is ignored.
        expected: what a line should hold, for the error messages.
        count: how many columns each line must have; None for any number, at least one.
        separator: as for `columns`; by default any ASCII white space.

    Yields:
        Line number from 1, and its columns.

    Raises:
        InputError: no file, no line with text, or as `columns`.
    """
    for number, _, line in scan_lines(path, expected):
        yield number, columns(line, count, expected, path, number, separator=separator)


def lines(path: str | Path, expected: str) -> Iterator[tuple[int, str]]:
    """The lines with text of a UTF-8 file.

    Args:
        path: the file; a byte order mark at its start is ignored.
        expected: what a line should hold, for the error messages.

    Yields:
        Line number from 1, and the line without its end.

    Raises:
        InputError: no file, no line with text, or invalid UTF-8.
    """
    for number, _, line in scan_lines(path, expected):
        yield number, decode(line, expected, path, number)


def read_text(path: str | Path, expected: str, most: int | None = None) -> str:
    """A UTF-8 file as a whole, plain or compressed, without a byte order mark.

    Args:
        path: the file.
        expected: what it should hold, for the error message.
        most: bytes that it may have, unpacked; None for any number.

    Raises:
        InputError: no file, one that is damaged or too long, or invalid UTF-8, with its line.
    """
    with open_content(path) as (file, _):
        content = file.read(-1 if most is None else most + 1)
    if most is not None and len(content) > most:
        raise InputError(f"more than {most:,} bytes, expected {expected}", path)
    content = content.removeprefix(_BYTE_ORDER_MARK)
    _refuse_utf16(content.partition(b"\n")[0], Path(path))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"invalid UTF-8 ({error.reason}), expected {expected}", path, number) from None


def read_json(path: str | Path, expected: str = "JSON") -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        expected: what it should hold, for the error messages.

    Raises:
        InputError: no file, invalid UTF-8 or invalid JSON, with its line.
    """
    text = read_text(path, expected)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"invalid JSON ({error.msg}), expected {expected}", path, error.lineno) from None
    except (RecursionError, ValueError) as error:
        reason = "too deep" if isinstance(error, RecursionError) else "a number of too many digits"
        raise InputError(f"invalid JSON ({reason}), expected {expected}", path) from None


@contextmanager
def unfinished(target: str | Path) -> Iterator[Path]:
    """A path at which to make a file or folder that takes the target's place when the block ends without an error.

    It lies in a hidden folder of its own next to the target, which has room for other temporary files
    (``path.parent``) and goes with all that is in it; what a killed process leaves there is never read. Where another
    process finished the same folder first, that one stays, so the content must depend on the name alone.

    Args:
        target: the file or folder; its parents are made as needed.

    Yields:
        A path where nothing is yet.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{target.name}-", dir=target.parent))
    try:
        temporary = scratch / target.name
        yield temporary
        if temporary.is_dir():
            _open_to_readers(temporary)
        try:
            temporary.replace(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes the target when the block ends without an error; see `unfinished`."""
    with unfinished(target) as folder:
        folder.mkdir()
        yield folder


def remove_unfinished(target: str | Path) -> None:
    """Remove what killed processes left of ``target``; call it only while no other process writes the same target."""
    target = Path(target)
    for leftover in target.parent.glob(f"{UNFINISHED}{target.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def write_whole(path: str | Path) -> Iterator[TextIO]:
    """A UTF-8 text file that appears at its path only when it has been written to the end.

    After an error the file is as it was before; see `unfinished`, which also serves files of bytes.

    Raises:
        InputError: the folder does not exist, or the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("this is a folder, expected the name of a file to write", path)
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist", path)
    with unfinished(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON for people to read, whole or not at all; see `write_whole`."""
    with write_whole(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _open_to_readers(folder: Path) -> None:
    """Give the folder and its files the usual permissions; some libraries write files for their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def json_line(line: bytes, expected: str, path: str | Path, number: int = 0) -> Any:
    """The content of a line that holds JSON.

    Args:
        line: its bytes.
        expected: what it should hold, for the error messages.
        path: the file, for the error messages.
        number: of the line from 1, for the error messages; 0 where it is not known.

    Raises:
        InputError: invalid UTF-8 or invalid JSON.
    """
    text = decode(line, expected, path, number)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
    except (RecursionError, ValueError) as error:
        reason = "too deep" if isinstance(error, RecursionError) else "a number of too many digits"
    raise InputError(f"invalid JSON ({reason}), expected {expected}", path, number)
