"""Bitext by name, ``ntrex:FOLDER,tico19:FOLDER``: the files of a language in folders as published.

    ntrex   NTREX-128 (Federmann et al. 2022): NTREX-128/newstest2019-src.eng.txt and newstest2019-ref.LANGUAGE.txt;
            1,997 sentences of news, one a line, aligned; github.com/MicrosoftTranslator/NTREX, CC BY-SA 4.0
    tico19  TICO-19 (Anastasopoulos et al. 2020): all.en-LANGUAGE.tmx.zip or .tmx; 3,071 sentences on COVID-19;
            tico-19.github.io, CC0

The files may also lie in the folder of that name (NTREX-128) or path (data/TM) that they have in the repository. A
source that lacks the language is passed over with a warning, so that one option serves several languages.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from datamodules.bitext.tmx import read_tmx
from datamodules.text import match_language, normalise
from foundations.checks import did_you_mean
from foundations.errors import InputError
from foundations.files import read_text


def bitext_pairs(sources: str, language: str) -> list[tuple[str, str]]:
    """(English, foreign) texts of all sources, without those that are empty on one side.

    Args:
        sources: ``NAME:FOLDER``, several with commas between them; see the head of this file.
        language: ISO 639 code, of two or three letters.

    Raises:
        InputError: an unknown name, a folder that is missing or holds no file of the source, or a malformed file.
    """
    pairs: list[tuple[str, str]] = []
    for source in sources.split(","):
        name, _, folder = source.strip().partition(":")
        if name not in _SOURCES or not folder:
            raise InputError(
                f"bitext is {source.strip()!r}, expected NAME:FOLDER with one of the names {', '.join(_SOURCES)}"
                f"{did_you_mean(name, _SOURCES)}"
            )
        patterns, read = _SOURCES[name]
        files = _files(Path(folder).expanduser(), patterns)
        if (code := match_language(language, files)) is None:
            warnings.warn(f"bitext {name} is passed over: it has no {language}, only {', '.join(files)}", stacklevel=2)
            continue
        pairs += [pair for pair in read(files[code], code) if all(pair)]
    return pairs


def _files(folder: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """The files of a source by the code in their names, where a pattern has its star."""
    if not folder.is_dir():
        raise InputError("no such folder", folder)
    files: dict[str, Path] = {}
    for pattern in patterns:
        before, _, after = Path(pattern).name.partition("*")
        files |= {path.name.removeprefix(before).removesuffix(after): path for path in sorted(folder.glob(pattern))}
    if not files:
        raise InputError(f"the folder has no file {' or '.join(patterns)}", folder)
    return files


def _read_ntrex(path: Path, code: str) -> Iterator[tuple[str, str]]:  # noqa: ARG001
    source = path.with_name("newstest2019-src.eng.txt")
    texts = [read_text(each, "a sentence a line").rstrip("\n").split("\n") for each in (source, path)]
    if len(texts[0]) != len(texts[1]):
        raise InputError(f"{len(texts[1])} lines, expected {len(texts[0])} as in {source.name}", path)
    return ((normalise(english), normalise(foreign)) for english, foreign in zip(*texts, strict=True))


def _read_tico19(path: Path, code: str) -> Iterator[tuple[str, str]]:
    return read_tmx(path, "en", code)


_SOURCES: dict[str, tuple[tuple[str, ...], Callable[[Path, str], Iterator[tuple[str, str]]]]] = {
    "ntrex": (("newstest2019-ref.*.txt", "NTREX-128/newstest2019-ref.*.txt"), _read_ntrex),
    "tico19": (tuple(f"{at}all.en-*.tmx{end}" for at in ("", "data/TM/") for end in ("", ".zip")), _read_tico19),
}
"""Name -> where its files lie, and what reads one in the language of a code."""
