"""Translation memories: TMX, plain or zipped, read unit by unit.

A unit (``tu``) holds variants (``tuv``), each with a language and a segment of text. Traps: (1) TMX 1.4 names the
language ``xml:lang``, older files ``lang``. (2) A segment may hold elements: what stands in ``bpt``, ``ept``, ``it``,
``ph`` and ``ut`` is code of the document that was translated, what stands in ``hi`` and ``sub`` is text.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from datamodules.text import normalise
from foundations.errors import InputError
from foundations.files import require_file

_CODES = ("bpt", "ept", "it", "ph", "ut")
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def read_tmx(path: str | Path, source: str = "en", target: str = "sw") -> Iterator[tuple[str, str]]:
    """The (source, target) texts of the units that have both languages; either text may be empty.

    One unit at a time is in memory. XML that grows by entities is refused by the parser (expat 2.4.1 and later), and
    nothing that a file refers to is read.

    Args:
        path: a TMX file, or a zip file that holds some.
        source: language of the first text, as a tag (``en``), which also stands for its regions (``en-GB``).
        target: language of the second text, likewise.

    Yields:
        Normalised texts, in the order of the file.

    Raises:
        InputError: no file, a zip file without TMX, invalid XML, or no unit with both languages.
    """
    languages: dict[str, None] = {}
    found = False
    with ExitStack() as stack:
        for file in _open(require_file(path), stack):
            for unit in _units(file, Path(path)):
                languages |= dict.fromkeys(unit)
                texts = _in(unit, source), _in(unit, target)
                if texts[0] is not None and texts[1] is not None:
                    found = True
                    yield texts[0], texts[1]
    if not found:
        known = ", ".join(languages) or "none"
        raise InputError(f"no unit has {source!r} and {target!r}, expected two of its languages: {known}", path)


def _open(path: Path, stack: ExitStack) -> Iterator[IO[bytes]]:
    """The file, or the TMX files that lie in it zipped, one after the other."""
    if not zipfile.is_zipfile(path):
        yield stack.enter_context(path.open("rb"))
        return
    archive = stack.enter_context(zipfile.ZipFile(path))
    names = [name for name in archive.namelist() if name.lower().endswith(".tmx")]
    if not names:
        raise InputError("the zip file holds no .tmx, expected at least one", path)
    for name in names:
        with archive.open(name) as file:
            yield file


def _units(file: IO[bytes], path: Path) -> Iterator[dict[str, str]]:
    """The texts of each unit, by language."""
    parents: list[ElementTree.Element] = []
    try:
        for event, element in ElementTree.iterparse(file, ("start", "end")):
            if event == "start":
                parents.append(element)
                continue
            parents.pop()
            if element.tag == "tu" and parents:
                yield {_tag(variant): _text(variant.find("seg")) for variant in element.iter("tuv")}
                parents[-1].clear()
    except ElementTree.ParseError as error:
        raise InputError(f"invalid XML ({error}), expected TMX", path, error.position[0]) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # a RuntimeError where it is encrypted
        raise InputError(f"cannot be unpacked: {error}", path) from None


def _tag(variant: ElementTree.Element) -> str:
    return (variant.get(_LANGUAGE) or variant.get("lang") or "").replace("_", "-")


def _text(segment: ElementTree.Element | None) -> str:
    return "" if segment is None else normalise("".join(_pieces(segment)))


def _pieces(element: ElementTree.Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag not in _CODES:
            yield from _pieces(child)
        yield child.tail or ""


def _in(unit: dict[str, str], language: str) -> str | None:
    """The text in a language, or in the first of its regions."""
    tags = re.compile(rf"{re.escape(language.replace('_', '-'))}(-.*)?", re.IGNORECASE)
    return next((text for tag, text in sorted(unit.items()) if tags.fullmatch(tag)), None)
