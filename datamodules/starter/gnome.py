"""GNOME's user help: English pages, and their titles in some 40 languages.

Source: Debian's package ``gnome-user-docs`` (CC-BY-SA-3.0): Mallard XML, one page a file, in
``usr/share/help/<language>/gnome-help``; ``C`` is the English original.

Traps: a translation that is not finished holds English text, so only titles that differ from the English one are
translated ones. Some pages are mere lists of links, which Mallard fills in when it shows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from datamodules.fetch import fetch
from datamodules.starter.cldr import inheritance
from datamodules.text import fold, has_letter, normalise
from foundations.errors import InputError

_MALLARD = "{http://projectmallard.org/1.0/}"
_BLOCKS = ("code", "desc", "item", "note", "p", "screen", "section", "td", "title")
_SEQUENCES = ("guiseq", "keyseq")  # File > Save, Ctrl + S: shown with signs between
_LEAST_WORDS = 20
_OWN_CODES = {"pt": ["pt_BR", "pt"], "zh": ["zh_CN"], "sr-Latn": ["sr@latin"], "pt-PT": ["pt"], "no": ["nb"]}


@dataclass(frozen=True)
class Page:
    """Title of a page of help, and all other text but the description of the page."""

    title: str
    body: str


def read_page(path: Path) -> Page:
    """Read a Mallard page."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"this is not XML: {error}", path) from None
    title = root.find(f"{_MALLARD}title")
    texts = [_text(node) for node in root if node.tag not in (f"{_MALLARD}info", f"{_MALLARD}title")]
    return Page("" if title is None else _text(title), " ".join(text for text in texts if text))


def _text(node: ElementTree.Element) -> str:
    return normalise("".join(_pieces(node)))


def _pieces(node: ElementTree.Element) -> Iterator[str]:
    """The text of an element, with a space where a reader sees one."""
    name = node.tag.removeprefix(_MALLARD)
    yield node.text or ""
    for child in node:
        yield from _pieces(child)
        yield " " if name in _SEQUENCES else child.tail or ""
    if name in _BLOCKS:
        yield " "


def english_pages() -> dict[str, Page]:
    """The English pages by id, in alphabetical order, that have at least 20 words apart from the title."""
    pages = {path.stem: read_page(path) for path in sorted((_help_folder() / "C/gnome-help").glob("*.page"))}
    return {name: page for name, page in pages.items() if page.title and len(page.body.split()) >= _LEAST_WORDS}


def translated_titles(locale: str) -> dict[str, str]:
    """Titles of the English pages by id, where they are translated into the language of a CLDR locale.

    InputError where the package has no help in this language.
    """
    folder = _language_folder(locale)
    titles = {}
    for name, english in english_pages().items():
        path = folder / "gnome-help" / f"{name}.page"
        title = read_page(path).title if path.is_file() else ""
        if has_letter(title) and fold(title) != fold(english.title):
            titles[name] = title
    return titles


def _help_folder() -> Path:
    return fetch("gnome-user-docs") / "usr/share/help"


def _language_folder(locale: str) -> Path:
    """The folder of a language in the package."""
    folders = {path.name: path for path in sorted(_help_folder().iterdir()) if (path / "gnome-help").is_dir()}
    for name in reversed(inheritance(locale)):
        for code in (*_OWN_CODES.get(name, ()), name.replace("-", "_")):
            if code in folders:
                return folders[code]
    choices = ", ".join(name for name in folders if name != "C")
    raise InputError(f"the help of GNOME is not translated into {locale!r}; expected one of {choices}")
