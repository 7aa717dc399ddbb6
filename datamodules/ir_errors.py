"""What ir_datasets raises over files that are missing or malformed, said so that a user can act on it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from retrieval.errors import InputError


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
